//! Flags of `scalebeam import`.

use clap::Args;
use std::path::PathBuf;

/// Files of other tools, and what logs of power are put beside.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Results of other tools (JSON, JSON lines, CSV), and power logs: seed 4's power_log_*.csv, CSV of nvidia-smi or
    /// amd-smi, srt-slurm's samples.csv. What a file is, it says itself
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Results that power logs are put beside: seed 4's list, or one with benchmark_start_time_unix
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// Begin of the time to look at (UTC); all of each log where it is not said
    #[arg(long, value_name = "TIME", requires = "to")]
    pub(crate) from: Option<String>,
    /// End of the time to look at (UTC)
    #[arg(long, value_name = "TIME", requires = "from")]
    pub(crate) to: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

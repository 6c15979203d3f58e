//! Flags of `scalebeam import`.

use clap::Args;
use std::path::PathBuf;

/// Logs of power, and what they are put beside.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Power logs: seed 4's power_log_*.csv, CSV of nvidia-smi or amd-smi, srt-slurm's samples.csv
    #[arg(required = true, value_name = "LOG")]
    pub(crate) logs: Vec<PathBuf>,
    /// Results of the benchmark: seed 4's list, or one with benchmark_start_time_unix
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

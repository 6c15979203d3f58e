//! `scalebeam agent`: where it works, and whether it is one or asks one.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Directory for its socket and its spool, made where it is absent
    pub(crate) dir: PathBuf,
    /// Join standard input and output to the agent that works in the directory, instead of being one
    #[arg(long)]
    pub(crate) attach: bool,
    /// Its own id among the processes that it watches
    #[arg(long, value_name = "ID", conflicts_with = "attach")]
    pub(crate) id: Option<String>,
    /// How long it goes on when nobody asks it anything
    #[arg(long, value_name = "SPAN", default_value = "120s", conflicts_with = "attach")]
    pub(crate) linger: String,
}

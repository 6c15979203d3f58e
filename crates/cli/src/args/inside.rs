//! `scalebeam inside`: what a Job of Kubernetes and the scalebeam outside of it say to each other.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct InsideArgs {
    #[command(subcommand)]
    pub(crate) what: InsideCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InsideCommand {
    /// Run scalebeam, and stay until what it wrote was fetched
    Run {
        #[command(flatten)]
        state: StateArgs,
        /// How long it stays where nobody fetches anything
        #[arg(long, value_name = "SPAN", default_value = "1h")]
        linger: String,
        /// Its command line
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// Wait for the end of the run, and print how it was, or null
    Wait {
        #[command(flatten)]
        state: StateArgs,
        /// How long to wait
        #[arg(long, value_name = "SPAN")]
        limit: String,
    },
    /// Have the run finish what is in flight, and take down
    Stop(StateArgs),
    /// Nothing is needed any more of what the run wrote
    Release(StateArgs),
    /// Print a run directory as one stream
    Pack {
        /// The directory; one that is absent has no files
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Where what is asked and answered is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
}

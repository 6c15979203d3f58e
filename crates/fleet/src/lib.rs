//! Makes a planned deployment exist on machines, and takes it down.
//!
//! **Architecture invariants.**
//! - Executing a plan decides nothing: [`engine`] turns a shape into command lines while the plan is
//!   made, [`launch`] starts exactly those.
//! - Nothing is left behind: an intent is in the [`journal`], on the disk, before a process exists, and
//!   [`teardown`] works from the journal alone, from any state, twice, and after `kill -9`.
//! - Nothing that scalebeam did not start is ever signalled: a process is ours only while its start
//!   time, boot and group or marker agree with what was recorded ([`process`]).
//! - Secrets are passed on by name: no value of an inherited variable reaches a file or an argv.

pub mod agent;
pub mod doctor;
pub mod engine;
pub mod failure;
mod fingerprint;
pub mod host;
mod http;
pub mod journal;
pub mod launch;
mod metrics_page;
pub mod process;
pub mod ready;
mod remote;
pub mod render;
pub mod setup;
pub mod teardown;

mod error;

pub use error::{Death, Exit, FleetError, Stuck};
/// A run that is measured in a pod of its deployments' own cluster.
pub mod inside {
    pub use crate::launch::{
        InsideClient as Client, InsideEnd as End, InsideJob as Job, InsideUnknown as Unknown,
        LAST_LINE,
    };
    pub use crate::render::{Inside, RUNS, STATE, experiment_path, files_read};
}

pub use fingerprint::fingerprint;
pub use launch::{Context, NotKept, OnNodes, Progress, Running, State, Stop, bring_up};
pub use metrics_page::{MetricsPages, Page};
pub use teardown::{DownReport, Leftover, TeardownReport, down_run, leftovers};

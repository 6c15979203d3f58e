//! `agent`: reads this machine for a scalebeam elsewhere.

use crate::args::AgentArgs;
use crate::clock::WallClock;
use crate::exit::{Failure, Status};
use scalebeam_telemetry::agent::{self, AgentConfig};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn run(args: &AgentArgs) -> Result<Status, Failure> {
    let done = if args.attach {
        agent::attach(&args.dir, VERSION, std::io::stdin(), std::io::stdout())
    } else {
        let linger = super::span("--linger", &args.linger)?;
        let config = AgentConfig { version: VERSION.to_owned(), own_id: args.id.clone(), linger };
        agent::run(&args.dir, config, WallClock::shared())
    };
    done.map_err(|e| Failure::deployment(format!("agent in {}: {e}", args.dir.display())))?;
    Ok(Status::Ok)
}

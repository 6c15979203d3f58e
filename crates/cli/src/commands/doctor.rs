//! `doctor`: whether the deployments of a file could work on its hosts.

use crate::args::DoctorArgs;
use crate::clock::WallClock;
use crate::exit::{Failure, Status};
use crate::experiment::{self, Selection};
use crate::{findings, printer, settings};
use scalebeam_model::doctor::Severity;

pub(super) fn run(args: &DoctorArgs) -> Result<Status, Failure> {
    let selection = Selection { deploy: args.deploy.clone(), load: Vec::new() };
    let loaded = experiment::selected(&args.file.file, &selection)?;
    let (clock, cache) = (WallClock::shared(), settings::cache_dir());
    let plan = &loaded.plan;
    let all = plan.deployments.iter().collect();
    let asking = scalebeam_fleet::doctor::examine(plan, all, &cache, &clock);
    let report = super::runtime(2)?.block_on(asking);
    if args.file.json {
        printer::json(&report)?;
    } else {
        printer::data(&findings::table(&report));
    }
    let stops = report.failed(Severity::Stops).next().is_some();
    Ok(if stops { Status::Deployment } else { Status::Ok })
}

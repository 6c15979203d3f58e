//! `up`: bring one deployment up, prove it, and leave it running.

use crate::args::UpArgs;
use crate::campaign::{self, Doctor, Goal, Place};
use crate::exit::{Failure, Status};
use crate::experiment::{self, Selection};
use crate::printer;
use serde_json::json;

pub(super) fn run(args: &UpArgs) -> Result<Status, Failure> {
    let selection = Selection { deploy: vec![args.deploy.clone()], load: Vec::new() };
    let mut loaded = experiment::selected(&args.file, &selection)?;
    loaded.plan.points.clear();
    loaded.plan.searches.clear();
    let out = super::run::out_dir(args.out.as_deref(), &loaded.experiment);
    let doctor = if args.no_doctor { Doctor::NotAsked } else { Doctor::Asked };
    let goal = Goal::New { out, place: Place::Here };
    let up = super::runtime(2)?.block_on(campaign::up(&loaded, goal, doctor))?;
    let Some(up) = up else { return Ok(Status::Interrupted) };
    if args.json {
        printer::json(
            &json!({ "deployment": args.deploy, "endpoints": up.endpoints, "run": up.dir }),
        )?;
    } else {
        let dir = up.dir.display();
        printer::data(&format!(
            "{}\ntake it down with: scalebeam down {dir}",
            up.endpoints.join("\n")
        ));
    }
    Ok(Status::Ok)
}

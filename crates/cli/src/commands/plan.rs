//! `plan`: everything that a run would do.

use crate::args::PlanArgs;
use crate::exit::{Failure, Status};
use crate::experiment::{self, Selection};
use crate::{printer, show};

pub(super) fn run(args: &PlanArgs) -> Result<Status, Failure> {
    let mut loaded = experiment::load(&args.file.file)?;
    let (deploy, load) = (args.select.deploy.clone(), args.select.load.clone());
    loaded.select(&Selection { deploy, load })?;
    if args.file.json {
        printer::json(&loaded.plan)?;
    } else {
        printer::data(&show::plan(&loaded.plan));
    }
    Ok(Status::Ok)
}

//! `setup`: managed engines in the user's cache folder.

use super::runtime;
use crate::args::{SetupArgs, SetupEngine};
use crate::exit::{Failure, Status};
use crate::{printer, settings};
use scalebeam_fleet::setup::llama_cpp;

pub(super) fn run(args: &SetupArgs) -> Result<Status, Failure> {
    let SetupEngine::LlamaCpp = args.engine;
    let cache = settings::cache_dir();
    if llama_cpp::installed(&cache).is_none() {
        printer::say(&llama_cpp::plan_text(&cache));
    }
    let installed = runtime(2)?.block_on(llama_cpp::install(&cache, &|text| printer::say(text)))?;
    if args.json {
        printer::json(&installed)?;
    } else {
        let what = if installed.fresh { "installed" } else { "already there" };
        printer::data(&format!(
            "{what}: {}\npython {}\nmodel  {}",
            installed.packages.join(", "),
            installed.python.display(),
            installed.model.display()
        ));
    }
    Ok(Status::Ok)
}

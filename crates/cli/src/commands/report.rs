//! `report`: results and charts of a run, made again from its records.

use crate::args::ReportArgs;
use crate::campaign::outcome::{self, Shown};
use crate::exit::{Failure, Status};
use scalebeam_record::RunReader;
use scalebeam_report::Format;

pub(super) fn run(args: &ReportArgs) -> Result<Status, Failure> {
    let formats = args
        .format
        .iter()
        .map(|name| {
            Format::from_name(name).ok_or_else(|| {
                let known: Vec<_> = Format::ALL.iter().map(|f| f.name()).collect();
                Failure::usage(format!("no format '{name}'"))
                    .hint(format!("known are {}", known.join(", ")))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let reader = RunReader::open(&args.run)?;
    let formats = (!formats.is_empty()).then_some(formats);
    outcome::conclude(&reader, formats, &Shown::new(args.json, &args.define)?)
}

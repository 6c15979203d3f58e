//! `report --power-logs`: GPU power of each trial in seed 4's own form.

use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::telemetry::{Allocated, Device, Part, power_log};
use scalebeam_model::units::Nanos;
use scalebeam_record::{RunReader, TrialReader};
use std::collections::BTreeSet;
use std::path::Path;

/// Writes one file a trial whose GPUs told their power to `dir`, and prints their names.
pub(super) fn write(reader: &RunReader, dir: &Path) -> Result<Status, Failure> {
    let fail =
        |e: std::io::Error| Failure::usage(format!("cannot write to {}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(fail)?;
    let mut taken = BTreeSet::new();
    let plan = reader.plan();
    for point in plan.every_point() {
        let given = plan.deployment(&point.deployment);
        let given = given.map(|d| Allocated::of(d, &plan.hosts)).unwrap_or_default();
        for trial in reader.trials(point)? {
            let Some((name, text)) = log(reader, &trial, &given, &mut taken)? else { continue };
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(fail)?;
            printer::data(&format!("{}\n", path.display()));
        }
    }
    if taken.is_empty() {
        return Err(Failure::usage("no trial of this run has power of GPUs")
            .hint("usage.absent in results.json says why"));
    }
    Ok(Status::Ok)
}

/// Its name has a second in it: of two trials that began in the same one, the later is given another.
fn log(
    reader: &RunReader,
    trial: &TrialReader,
    given: &Allocated,
    taken: &mut BTreeSet<String>,
) -> Result<Option<(String, String)>, Failure> {
    let Some(mut telemetry) = trial.telemetry()? else { return Ok(None) };
    let given = given.clone().seen(&telemetry);
    // The number of GPUs is in the name, and those of others on the machine are none of it.
    if !given.gpus.is_empty() {
        let cards: Vec<Device> = telemetry.devices(Part::Gpu).into_iter().cloned().collect();
        let is_given = |d: &&Device| given.of_device(&telemetry, d).is_some();
        let mine: BTreeSet<Device> = cards.iter().filter(is_given).cloned().collect();
        telemetry.series.retain(|s| s.device.part != Part::Gpu || mine.contains(&s.device));
    }
    let sessions = &reader.manifest().sessions;
    let session = trial.session().and_then(|n| sessions.get(usize::try_from(n).ok()?));
    // Without its session nobody knows what time it was.
    let Some(session) = session else { return Ok(None) };
    let unix = Nanos(session.unix_ns.saturating_sub(session.mono_ns));
    let Some((name, text)) = power_log::seed4(&telemetry, unix) else { return Ok(None) };
    let mut free = name.clone();
    let mut n = 1;
    while !taken.insert(free.clone()) {
        n += 1;
        free = name.replace(".csv", &format!("-{n}.csv"));
    }
    Ok(Some((free, text)))
}

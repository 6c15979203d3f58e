//! What the instrument is worth on this machine, measured before the first deployment and kept beside the
//! records. It never keeps a campaign from going on: without it no point is held against it, and that is
//! said.

use super::{Asked, Campaign, reached};
use crate::exit::{Failure, chain};
use crate::printer;
use crate::selftest::floor::{Demand, line, measure_floor};
use scalebeam_model::floor::Floor;
use scalebeam_model::spec::SelftestWhen;
use scalebeam_model::units::Nanos;
use scalebeam_record::{read_floor, write_floor};

/// A measurement may cost this part of what it is for, unless it is asked for always.
const PART: u64 = 10;

/// Measures the floor where the file and the plan ask for it, says it, and keeps it.
pub(super) async fn measure(campaign: &Campaign<'_>) -> Result<(), Failure> {
    let dir = campaign.writer.dir();
    // A run that goes on keeps what was measured before its first trial.
    if read_floor(dir)?.is_some() {
        return Ok(());
    }
    let plan = &campaign.loaded.plan;
    let demand = Demand::of(plan);
    let when = campaign.loaded.experiment.selftest.unwrap_or_default();
    if !is_wanted(when, demand.lasts(), plan.estimate.wall) {
        if when == SelftestWhen::Auto {
            printer::say(
                "instrument: not measured before so short a run (--selftest always measures it)",
            );
        }
        return Ok(());
    }
    let work = tokio::task::spawn_blocking(move || measure_floor(&demand, |_, _| {}));
    let measured = tokio::select! {
        measured = work => measured.map_err(|e| Failure::internal(e.to_string()))?,
        // The parts have the signal too, and end by it.
        () = reached(&campaign.asked, Asked::Once) => return Ok(()),
    };
    match measured {
        Ok(floor) => keep(dir, &floor),
        Err(failure) => {
            printer::say(&format!("instrument: not measured: {}", failure.message()));
            Ok(())
        }
    }
}

fn keep(dir: &std::path::Path, floor: &Floor) -> Result<(), Failure> {
    printer::say(&line(floor));
    write_floor(dir, floor).map_err(|e| Failure::internal(chain(&e)))
}

fn is_wanted(when: SelftestWhen, cost: Nanos, run: Nanos) -> bool {
    match when {
        SelftestWhen::Always => true,
        SelftestWhen::Never => false,
        SelftestWhen::Auto => run.0 >= cost.0.saturating_mul(PART),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_is_not_made_a_long_one() {
        let s = Nanos::from_secs;
        assert!(is_wanted(SelftestWhen::Auto, s(4), s(40)));
        assert!(!is_wanted(SelftestWhen::Auto, s(4), s(39)));
        assert!(is_wanted(SelftestWhen::Always, s(4), s(1)));
        assert!(!is_wanted(SelftestWhen::Never, s(4), s(4_000)));
    }
}

//! GPUs of AMD by `amd-smi`: by the table that one process of it goes on printing, else, where a version of it prints
//! no table that can be read, by a document that it is asked for now and then. (Until 2026 it printed no documents
//! when it was told to go on.)

use super::smi::{AMD, Smi};
use crate::poll::{Poll, Poller};
use crate::program::printed;
use crate::readings::Source;
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::amd_json;
use scalebeam_model::telemetry::table::{Maker, Table};
use scalebeam_model::units::Nanos;
use std::sync::Arc;

const PROGRAM: &str = "amd-smi";
/// Each question starts an interpreter of Python.
const LEAST_INTERVAL: Nanos = Nanos::from_secs(1);

/// Starts whichever way its version has.
///
/// # Errors
/// Says why there is none.
pub(crate) fn start(
    host: &str,
    interval: Nanos,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn Source>, String> {
    if prints_table(PROGRAM, clock.as_ref()) {
        return Ok(Box::new(Smi::start(Maker::Amd, host, interval, clock)?));
    }
    Ok(Box::new(by_documents(PROGRAM, host, interval, clock)?))
}

fn prints_table(program: &str, clock: &dyn Clock) -> bool {
    let args: Vec<&str> = AMD.into_iter().chain(["--csv"]).collect();
    let mut table = Table::new(Maker::Amd);
    let mut has_row = |text: String| text.lines().any(|line| table.row("", line).is_some());
    printed(clock, program, &args).is_ok_and(&mut has_row)
}

fn by_documents(
    program: &str,
    host: &str,
    interval: Nanos,
    clock: &Arc<dyn Clock>,
) -> Result<Poller, String> {
    let (program, name, asking) = (program.to_owned(), host.to_owned(), Arc::clone(clock));
    let ask = move || {
        let args: Vec<&str> = AMD.into_iter().chain(["--json"]).collect();
        amd_json::read(&name, &printed(asking.as_ref(), &program, &args)?)
    };
    if ask()?.is_empty() {
        return Err("amd-smi tells of no GPU, neither by a table nor by JSON".to_owned());
    }
    let poll = Poll {
        host: host.to_owned(),
        what: "power of GPUs by amd-smi".to_owned(),
        interval: interval.max(LEAST_INTERVAL),
        repeats: false,
        ask: Box::new(ask),
    };
    Poller::start(poll, clock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readings::Readings;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::telemetry::Quantity;
    use std::os::unix::fs::PermissionsExt;

    const DOCUMENT: &str =
        r#"[{"gpu": 0, "power": {"socket_power": {"value": 742, "unit": "W"}}}]"#;

    /// A program that prints `table`, and [`DOCUMENT`] where it is asked for JSON.
    fn stand_in(dir: &tempfile::TempDir, table: &str) -> String {
        let path = dir.path().join("amd-smi");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--json) echo '{DOCUMENT}' ;; *) printf '{table}' ;; esac\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_version_without_a_table_is_asked_for_documents() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let program = stand_in(&dir, "gpu,socket_power\\n0,742\\n");
        assert!(prints_table(&program, clock.as_ref()));
        let program = stand_in(&dir, "GPU: 0\\n    POWER: N/A\\n");
        assert!(!prints_table(&program, clock.as_ref()));
        let mut poller = by_documents(&program, "node1", Nanos::from_secs(1), &clock).unwrap();
        let mut readings = Readings::default();
        poller.before_begin();
        poller.begin(clock.as_ref(), &mut readings);
        let look = readings.looks().into_iter().next().unwrap();
        assert_eq!((look.device.name.as_str(), look.device.index), ("AMD 0", Some(0)));
        assert_eq!(look.values.get(&Quantity::Power), Some(&742.0));
        let none = by_documents("/no/amd-smi", "node1", Nanos::from_secs(1), &clock).unwrap_err();
        assert!(none.contains("No such file"), "{none}");
    }
}

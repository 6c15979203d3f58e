//! The power of this machine by its management controller, asked by `ipmitool`.

use crate::poll::Poll;
use crate::program;
use crate::readings::device;
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::controller::ipmi_watts;
use scalebeam_model::telemetry::{CONTROLLER_INTERVAL, Part, Quantity};
use std::path::Path;
use std::sync::Arc;

const PROGRAM: &str = "ipmitool";
/// Where the kernel's driver shows a controller.
const DEVICES: [&str; 3] = ["/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"];

/// Asks for the power of `host`, this machine. `asked_for` is what the file says of it.
///
/// # Errors
/// Says why the controller is not asked.
pub(crate) fn ipmi(
    host: &str,
    asked_for: Option<bool>,
    clock: &Arc<dyn Clock>,
) -> Result<Poll, String> {
    let has_device = DEVICES.iter().any(|path| Path::new(path).exists());
    match (asked_for, has_device) {
        (Some(false), _) => return Err("the file wants it not to be asked".to_owned()),
        (None, false) => {
            let [path, ..] = DEVICES;
            return Err(format!(
                "there is no {path}: no management controller, or 'modprobe ipmi_devintf' was not run"
            ));
        }
        _ => {}
    }
    let clock = Arc::clone(clock);
    let chassis = device(host, Part::Chassis, "ipmi");
    let ask = move || {
        let printed = program::printed(clock.as_ref(), PROGRAM, &["dcmi", "power", "reading"])?;
        Ok(vec![(chassis.clone(), vec![(Quantity::Power, ipmi_watts(&printed)?)])])
    };
    Ok(Poll {
        host: host.to_owned(),
        what: "power by IPMI".to_owned(),
        interval: CONTROLLER_INTERVAL,
        repeats: false,
        ask: Box::new(ask),
    })
}

//! What a machine's management controller says of its power: by IPMI (`ipmitool dcmi power reading`) and by
//! Redfish. Both tell the power of the whole machine, GPUs included.

use serde_json::Value;

/// Watts of the machine now, from what `ipmitool dcmi power reading` printed.
///
/// # Errors
/// Says why there is no number in it.
pub fn ipmi_watts(printed: &str) -> Result<f64, String> {
    let said = |name: &str| {
        let line = printed.lines().find_map(|l| l.trim().strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim())
    };
    if said("Power reading state is").is_some_and(|state| state != "activated") {
        return Err("the controller's power reading is not activated".to_owned());
    }
    let reading = said("Instantaneous power reading");
    let reading = reading.ok_or("there is no 'Instantaneous power reading' in its answer")?;
    // Controllers without a sensor answer with nothing at all, which is no machine's power.
    watts(reading.split_whitespace().next().and_then(|n| n.parse().ok()))
}

/// Watts of the machine now, from a Redfish resource: `Power` of a chassis (`PowerControl`), one control of it, or
/// `EnvironmentMetrics` (`PowerWatts`). `pointer` is what stood behind the `#` of its address.
///
/// # Errors
/// Says why there is no number in it.
pub fn redfish_watts(body: &str, pointer: &str) -> Result<f64, String> {
    let resource: Value =
        serde_json::from_str(body).map_err(|e| format!("the answer is no JSON: {e}"))?;
    let part = resource.pointer(pointer);
    let part = part.ok_or_else(|| format!("the resource has nothing at #{pointer}"))?;
    if let Some(consumed) = part.get("PowerConsumedWatts") {
        return watts(consumed.as_f64());
    }
    if let Some(power) = part.get("PowerWatts") {
        return watts(power.get("Reading").unwrap_or(power).as_f64());
    }
    let none = Vec::new();
    let controls = part.get("PowerControl").and_then(Value::as_array).unwrap_or(&none);
    let told = |control: &&Value| control.get("PowerConsumedWatts").is_some_and(Value::is_number);
    let told: Vec<&Value> = controls.iter().filter(told).collect();
    match told.as_slice() {
        [] => Err("the resource has no PowerConsumedWatts".to_owned()),
        [one] => watts(one.get("PowerConsumedWatts").and_then(Value::as_f64)),
        several => Err(format!(
            "the resource has {} power controls: say which one is the whole machine's by adding \
             #/PowerControl/0 or its like to the url",
            several.len()
        )),
    }
}

fn watts(read: Option<f64>) -> Result<f64, String> {
    let is_power = |w: &f64| w.is_finite() && *w > 0.0;
    read.filter(is_power).ok_or_else(|| "its reading is no power".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DCMI: &str = "
    Instantaneous power reading:                   1420 Watts
    Minimum during sampling period:                  12 Watts
    Maximum during sampling period:                2014 Watts
    Average power reading over sample period:      1391 Watts
    IPMI timestamp:                           Thu Nov 26 10:15:03 2026
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated

";

    #[test]
    fn ipmi_tells_the_power_of_now() {
        assert_eq!(ipmi_watts(DCMI), Ok(1_420.0));
        for (text, why) in [
            (DCMI.replace("activated", "deactivated"), "not activated"),
            (DCMI.replace("1420", "0"), "no power"),
            ("DCMI request failed because: Invalid command (c1)".to_owned(), "no 'Instantaneous"),
        ] {
            assert!(ipmi_watts(&text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn redfish_tells_it_in_three_forms() {
        let power = r##"{"@odata.id": "/redfish/v1/Chassis/1/Power",
            "PowerControl": [{"@odata.id": "/redfish/v1/Chassis/1/Power#/PowerControl/0",
            "MemberId": "0", "Name": "System Power Control", "PowerConsumedWatts": 8004,
            "PowerMetrics": {"AverageConsumedWatts": 7900}}], "PowerSupplies": []}"##;
        assert_eq!(redfish_watts(power, ""), Ok(8_004.0));
        assert_eq!(redfish_watts(power, "/PowerControl/0"), Ok(8_004.0));
        assert!(redfish_watts(power, "/PowerControl/1").unwrap_err().contains("nothing at"));
        let metrics = r#"{"PowerWatts": {"Reading": 612.5, "DataSourceUri": "/x"}}"#;
        assert_eq!(redfish_watts(metrics, ""), Ok(612.5));
    }

    #[test]
    fn what_is_not_one_power_is_none() {
        let two = r#"{"PowerControl": [{"PowerConsumedWatts": 1}, {"PowerConsumedWatts": 2}]}"#;
        assert!(redfish_watts(two, "").unwrap_err().contains("#/PowerControl/0"));
        assert_eq!(redfish_watts(two, "/PowerControl/1"), Ok(2.0));
        let with_unread =
            r#"{"PowerControl": [{"PowerConsumedWatts": null}, {"PowerConsumedWatts": 3}]}"#;
        assert_eq!(redfish_watts(with_unread, ""), Ok(3.0));
        for body in ["{}", "<html>", "[]", r#"{"PowerControl": [{"PowerConsumedWatts": null}]}"#] {
            assert!(redfish_watts(body, "").is_err(), "{body}");
        }
    }
}

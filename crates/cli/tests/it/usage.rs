//! What results say of the machines of their first trial.

use serde_json::Value;

pub(crate) fn usage(results: &Value) -> &Value {
    &results["points"][0]["trials"][0]["usage"]
}

/// Rows of `what` whose host is `host`.
pub(crate) fn rows<'a>(usage: &'a Value, what: &str, host: &str) -> Vec<&'a Value> {
    let all = usage[what].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|row| row["host"] == host).collect()
}

/// The number `name` of `value`.
#[track_caller]
pub(crate) fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("no {name} in {value:#}"))
}

/// Cores of a machine of `usage` that were in use, on average.
#[track_caller]
pub(crate) fn cores_in_use(machine: &Value) -> f64 {
    mean(&machine["cpu_pct"]) / 100.0 * number(machine, "cores")
}

#[track_caller]
pub(crate) fn mean(value: &Value) -> f64 {
    value["mean"].as_f64().unwrap_or_else(|| panic!("no mean in {value}"))
}

/// Why nothing, or not all, is known of a host.
pub(crate) fn why(usage: &Value, host: &str) -> String {
    let about = rows(usage, "absent", host).into_iter();
    let about =
        about.filter(|a| a["what"] == "the machine" || a["what"] == "the end of its readings");
    about.map(|a| a["why"].as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

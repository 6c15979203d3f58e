//! What `amd-smi metric --json` and `amd-smi monitor --json` print: a list of GPUs, since ROCm 7 inside of an object.
//!
//! Values are called as in its tables, so one data file names both: `clock.gfx_0.clk` is the column `gfx_0_clk`. What is
//! no number (`"N/A"`) is absent and never zero.

use super::table::{Maker, Table};
use super::{Device, Quantity, Told};
use serde_json::{Deserializer, Value};

/// Megabytes of a unit of memory; the program counts in powers of two.
const MEMORY: [(&str, f64); 3] = [("KB", 1.0 / 1024.0), ("MB", 1.0), ("GB", 1024.0)];

/// GPUs of `host` by what it printed, with what was a number.
///
/// # Errors
/// Where `text` holds no such list.
pub fn read(host: &str, text: &str) -> Result<Told, String> {
    // It may warn of groups and permissions before.
    let is_begun = |line: &&str| line.trim_start().starts_with(['[', '{']);
    let begin: usize = text.split_inclusive('\n').take_while(|l| !is_begun(l)).map(str::len).sum();
    let rest = text.get(begin..).unwrap_or_default();
    let first = Deserializer::from_str(rest).into_iter::<Value>().next();
    let document = first.ok_or("amd-smi printed no JSON")?.map_err(|e| format!("amd-smi: {e}"))?;
    let gpus = document.get("gpu_data").unwrap_or(&document).as_array();
    let gpus = gpus.ok_or("amd-smi printed no list of GPUs")?;
    Ok(gpus.iter().filter_map(|gpu| of_gpu(host, gpu)).collect())
}

fn of_gpu(host: &str, gpu: &Value) -> Option<(Device, Vec<(Quantity, f64)>)> {
    let mut cells = Vec::new();
    for (section, value) in gpu.as_object()? {
        flatten(section, value, true, &mut cells);
    }
    let (head, cells): (Vec<String>, Vec<String>) = cells.into_iter().unzip();
    let row = Table::of(Maker::Amd, head).cells(host, &cells)?;
    Some((row.device, row.values))
}

/// Adds what `value` holds under the names of its table; of a section its own name is none of them.
fn flatten(name: &str, value: &Value, is_section: bool, cells: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => match fields.get("value") {
            Some(number) => {
                let unit = fields.get("unit").and_then(Value::as_str).unwrap_or_default();
                cells.extend(number.as_f64().map(|n| (name.to_owned(), in_megabytes(n, unit))));
            }
            None => {
                for (key, inner) in fields {
                    let inside = if is_section { key.clone() } else { format!("{name}_{key}") };
                    flatten(&inside, inner, false, cells);
                }
            }
        },
        Value::Number(number) => cells.push((name.to_owned(), number.to_string())),
        Value::String(text) => cells.push((name.to_owned(), text.clone())),
        // Lists are of parts of a GPU.
        Value::Array(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// Memory in the unit of the tables; everything else as it is.
fn in_megabytes(number: f64, unit: &str) -> String {
    let known = MEMORY.iter().find(|(name, _)| *name == unit);
    (number * known.map_or(1.0, |(_, megabytes)| *megabytes)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    fn values(text: &str) -> Vec<Vec<(Quantity, f64)>> {
        read("node1", text).unwrap().into_iter().map(|(_, values)| values).collect()
    }

    #[test]
    fn a_list_of_gpus_is_read_in_our_units_and_what_it_does_not_tell_is_absent() {
        let text = include_str!("fixtures/amd-metric.json");
        let busy = vec![
            (Quantity::GpuBusy, 95.0),
            (Quantity::GpuMemoryBusy, 80.0),
            (Quantity::GpuMemoryUsed, 174_950.0 * MIB),
            (Quantity::GpuMemoryTotal, 196_592.0 * MIB),
            (Quantity::Power, 742.0),
            (Quantity::Energy, 1_234_567.25),
            (Quantity::Temperature, 72.0),
            (Quantity::SmClock, 1_980.0),
            (Quantity::MemoryClock, 1_300.0),
        ];
        let idle = vec![
            (Quantity::GpuMemoryUsed, 283.0 * MIB),
            (Quantity::GpuMemoryTotal, 196_592.0 * MIB),
            (Quantity::Temperature, 45.0),
        ];
        let found = values(text);
        assert_eq!(found, [busy, idle]);
        // As versions before ROCm 7 print it.
        let list = text.trim_start_matches(|c| c != '[').trim_end_matches(|c| c != ']');
        assert_eq!(values(list), found);
        let devices = read("node1", text).unwrap().into_iter().map(|(device, _)| device);
        let named: Vec<_> = devices.map(|d| (d.host, d.name, d.index)).collect();
        let named_so = |n: u32| ("node1".to_owned(), format!("AMD {n}"), Some(n));
        assert_eq!(named, [named_so(0), named_so(1)]);
    }

    #[test]
    fn what_its_monitor_prints_is_read_too() {
        let found = values(include_str!("fixtures/amd-monitor.json"));
        let want = vec![
            (Quantity::GpuBusy, 87.0),
            (Quantity::GpuMemoryUsed, 121_344.0 * MIB),
            (Quantity::GpuMemoryTotal, 192.0 * 1024.0 * MIB),
            (Quantity::Power, 542.0),
            (Quantity::Temperature, 71.0),
            (Quantity::SmClock, 2_100.0),
            (Quantity::MemoryClock, 1_300.0),
        ];
        assert_eq!(found, [want]);
    }

    #[test]
    fn what_is_no_such_list_is_told() {
        for text in ["", "ERROR:root:No GPU", "{\"gpu\": 0", "{\"cpu\": 1}", "[[[["] {
            assert!(read("node1", text).unwrap_err().contains("amd-smi"), "{text}");
        }
        assert_eq!(read("node1", "[1, {}, {\"gpu\": \"x\"}]"), Ok(Vec::new()));
    }
}

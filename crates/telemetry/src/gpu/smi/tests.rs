//! Tables as `nvidia-smi` prints them on several machines.

use super::*;

/// A driver of branch 580 with one H100, as it printed it.
const H100: &str = "\
index, uuid, utilization.gpu [%], utilization.memory [%], memory.used [MiB], memory.total [MiB], power.draw [W], enforced.power.limit [W], temperature.gpu, clocks.current.sm [MHz], clocks.current.memory [MHz]
0, GPU-9684d6a8-f914-0dae-c833-d97e4010f2ce, 98 %, 41 %, 72113 MiB, 81559 MiB, 512.19 W, 700.00 W, 61, 1755 MHz, 2619 MHz
";
/// A part of a GPU (MIG): the driver gives no utilisation of the whole.
const MIG: &str = "\
index, uuid, utilization.gpu [%], utilization.memory [%], memory.used [MiB], memory.total [MiB], power.draw [W], enforced.power.limit [W], temperature.gpu, clocks.current.sm [MHz], clocks.current.memory [MHz]
0, GPU-1f2e, [N/A], [N/A], 10 MiB, 40960 MiB, 61.52 W, 400.00 W, 33, 1410 MHz, 1215 MHz
";
/// A workstation card without a power sensor, by an older driver.
const NO_POWER: &str = "\
index, uuid, utilization.gpu [%], utilization.memory [%], memory.used [MiB], memory.total [MiB], power.draw [W], enforced.power.limit [W], temperature.gpu, clocks.current.sm [MHz], clocks.current.memory [MHz]
0, GPU-a, 5 %, 2 %, 100 MiB, 2048 MiB, [Not Supported], [Not Supported], 50, 900 MHz, 2500 MHz
1, GPU-b, 0 %, 0 %, 0 MiB, 2048 MiB, [Unknown Error], [Not Supported], 51, 300 MHz, 405 MHz
";

fn rows(text: &str) -> Vec<(Device, Vec<(Quantity, f64)>)> {
    let mut table = Table::default();
    text.lines().filter_map(|line| table.row("node1", line)).collect()
}

fn value(row: &(Device, Vec<(Quantity, f64)>), quantity: Quantity) -> Option<f64> {
    row.1.iter().find(|(q, _)| *q == quantity).map(|(_, v)| *v)
}

#[test]
fn every_column_is_read_in_its_unit() {
    let rows = rows(H100);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].0.index, Some(0));
    assert_eq!(rows[0].0.name, "GPU-9684d6a8-f914-0dae-c833-d97e4010f2ce");
    let want = [
        (Quantity::GpuBusy, 98.0),
        (Quantity::GpuMemoryBusy, 41.0),
        (Quantity::GpuMemoryUsed, 72_113.0 * MIB),
        (Quantity::GpuMemoryTotal, 81_559.0 * MIB),
        (Quantity::Power, 512.19),
        (Quantity::PowerLimit, 700.0),
        (Quantity::Temperature, 61.0),
        (Quantity::SmClock, 1_755.0),
        (Quantity::MemoryClock, 2_619.0),
    ];
    assert_eq!(rows[0].1, want);
}

#[test]
fn what_the_driver_does_not_tell_is_absent_and_never_zero() {
    let mig = &rows(MIG)[0];
    assert_eq!(value(mig, Quantity::GpuBusy), None);
    assert_eq!(value(mig, Quantity::Power), Some(61.52));
    let cards = rows(NO_POWER);
    assert_eq!(cards.len(), 2);
    for card in &cards {
        assert_eq!(value(card, Quantity::Power), None);
        assert_eq!(value(card, Quantity::PowerLimit), None);
    }
    assert_eq!(value(&cards[1], Quantity::GpuBusy), Some(0.0), "idle is a value");
}

#[test]
fn columns_are_found_by_their_names() {
    let text = "uuid, power.draw [W], index\nGPU-x, 99.5 W, 3\n";
    let rows = rows(text);
    assert_eq!(rows[0].0.index, Some(3));
    assert_eq!(rows[0].1, [(Quantity::Power, 99.5)]);
}

#[test]
fn lines_that_are_no_rows_are_passed_over() {
    let text = "No devices were found\nindex, uuid, power.draw [W]\n\nx, y\n0, GPU-x, nan W\n0, GPU-x, 7 W\n";
    let rows = rows(text);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].1, [], "not a number");
    assert_eq!(value(&rows[1], Quantity::Power), Some(7.0));
}

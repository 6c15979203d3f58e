//! Tables as makers' programs print them, from their documents and from logs that people published.

use super::*;

const MIB: f64 = 1_048_576.0;

fn rows(maker: Maker, text: &str) -> Vec<Row> {
    let mut table = Table::new(maker);
    text.lines().filter_map(|line| table.row("node1", line)).collect()
}

fn value(row: &Row, quantity: Quantity) -> Option<f64> {
    row.values.iter().find(|(q, _)| *q == quantity).map(|(_, v)| *v)
}

/// Power, utilisation, memory in use and in all (MiB), temperature, clock.
type Numbers = [Option<f64>; 6];

fn numbers(row: &Row) -> Numbers {
    let mib = |q| value(row, q).map(|bytes| bytes / MIB);
    [
        value(row, Quantity::Power),
        value(row, Quantity::GpuBusy),
        mib(Quantity::GpuMemoryUsed),
        mib(Quantity::GpuMemoryTotal),
        value(row, Quantity::Temperature),
        value(row, Quantity::SmClock),
    ]
}

#[test]
fn every_file_of_names_can_be_read() {
    for maker in Maker::ALL {
        let names: Names = toml::from_str(maker.file()).unwrap();
        assert!(!names.index.is_empty() && !names.maker.is_empty());
        assert!(names.columns.values().all(|c| !c.names.is_empty() && c.scale > 0.0), "{maker:?}");
    }
}

#[test]
fn what_each_card_prints_is_read_in_our_units_and_what_it_does_not_tell_is_absent() {
    let all = |n: [f64; 6]| n.map(Some);
    let files: [(Maker, &str, Vec<Numbers>); 8] = [
        (
            Maker::Nvidia,
            include_str!("../fixtures/a100.csv"),
            vec![
                all([389.72, 100.0, 74_431.0, 81_920.0, 63.0, 1_275.0]),
                all([61.84, 0.0, 3.0, 81_920.0, 31.0, 210.0]),
            ],
        ),
        (
            Maker::Nvidia,
            include_str!("../fixtures/h100.csv"),
            vec![all([512.19, 98.0, 72_113.0, 81_559.0, 61.0, 1_755.0])],
        ),
        (
            Maker::Nvidia,
            include_str!("../fixtures/h200.csv"),
            vec![
                all([688.45, 99.0, 132_917.0, 143_771.0, 68.0, 1_830.0]),
                all([76.78, 0.0, 1.0, 143_771.0, 30.0, 345.0]),
            ],
        ),
        (
            Maker::Nvidia,
            include_str!("../fixtures/b200.csv"),
            vec![
                [Some(187.8), Some(0.0), None, None, Some(33.0), Some(120.0)],
                [Some(190.96), Some(0.0), None, None, Some(39.0), Some(120.0)],
                [Some(912.1), Some(98.0), None, None, Some(61.0), Some(1_965.0)],
                [None, Some(97.0), None, None, Some(62.0), Some(1_965.0)],
            ],
        ),
        (
            Maker::Nvidia,
            include_str!("../fixtures/l40s.csv"),
            vec![
                all([338.06, 100.0, 43_517.0, 46_068.0, 72.0, 2_340.0]),
                [None, None, Some(1.0), Some(46_068.0), Some(33.0), Some(210.0)],
            ],
        ),
        (
            Maker::Amd,
            include_str!("../fixtures/mi300x.csv"),
            vec![
                all([742.0, 95.0, 174_950.0, 196_592.0, 72.0, 1_980.0]),
                [None, Some(0.0), Some(283.0), Some(196_592.0), Some(45.0), Some(132.0)],
            ],
        ),
        (
            Maker::Intel,
            include_str!("../fixtures/xpu.csv"),
            vec![
                [Some(271.1), Some(87.5), Some(48_127.99), None, Some(54.0), Some(1_550.0)],
                [Some(118.1), None, Some(27.99), None, None, Some(1_550.0)],
            ],
        ),
        (
            Maker::Gaudi,
            include_str!("../fixtures/gaudi.csv"),
            vec![
                [Some(471.0), Some(92.0), Some(90_112.0), Some(98_304.0), Some(52.0), None],
                [None, Some(0.0), Some(768.0), Some(98_304.0), Some(27.0), None],
            ],
        ),
    ];
    for (maker, text, want) in files {
        let rows = rows(maker, text);
        assert_eq!(rows.iter().map(numbers).collect::<Vec<_>>(), want, "{maker:?}");
    }
}

#[test]
fn a_card_is_named_by_its_uuid_else_by_its_number() {
    let named = |maker, text| rows(maker, text)[0].device.clone();
    let h100 = named(Maker::Nvidia, include_str!("../fixtures/h100.csv"));
    assert_eq!(h100.name, "GPU-9684d6a8-f914-0dae-c833-d97e4010f2ce");
    let mi300x = named(Maker::Amd, include_str!("../fixtures/mi300x.csv"));
    assert_eq!((mi300x.name.as_str(), mi300x.index), ("AMD 0", Some(0)));
    let samples = "schema_version,timestamp_unix,scrape_seq,hostname,gpu_index,gpu_uuid,power_w\n\
                   1,1789948800.25,0,host-a,3,GPU-x,512.5\n";
    let row = &rows(Maker::SrtSlurm, samples)[0];
    assert_eq!((row.device.host.as_str(), row.device.index), ("host-a", Some(3)));
    assert_eq!(row.time.as_deref(), Some("1789948800.25"));
    assert_eq!(row.values, [(Quantity::Power, 512.5)]);
}

/// The driver gives no utilisation of a card that is cut into instances, and power of all of it.
#[test]
fn a_card_that_is_cut_into_instances_says_so() {
    let rows = rows(Maker::Nvidia, include_str!("../fixtures/a100-mig.csv"));
    let told = |row: &Row| [Quantity::MigEnabled, Quantity::GpuBusy].map(|q| value(row, q));
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), [[Some(1.0), None], [None, Some(0.0)]]);
    assert_eq!(value(&rows[0], Quantity::Power), Some(184.27));
}

#[test]
fn lines_that_are_no_rows_and_numbers_that_are_none_are_passed_over() {
    let text = "No devices were found\nindex, uuid, power.draw [W]\n\nx, y\n0, GPU-x, nan W\n\
                index, uuid, power.draw [W]\n0, GPU-x, 7 W\n";
    let rows = rows(Maker::Nvidia, text);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].values, [], "not a number");
    assert_eq!(value(&rows[1], Quantity::Power), Some(7.0));
    let mig = "index, uuid, utilization.gpu [%], memory.used [MiB], power.draw [W]\n\
               0, GPU-1f2e, [N/A], 10 MiB, 61.52 W\n";
    let mig = &self::rows(Maker::Nvidia, mig)[0];
    assert_eq!(value(mig, Quantity::GpuBusy), None);
    assert_eq!(value(mig, Quantity::Power), Some(61.52));
}

#[test]
fn cells_in_quotes_may_hold_commas() {
    assert_eq!(cells("1,\"[0, 1]\",x\r\n"), ["1", "[0, 1]", "x"]);
    assert_eq!(cells(""), [""]);
}

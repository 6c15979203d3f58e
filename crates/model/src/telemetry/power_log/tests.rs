use super::*;

/// A log of seed 4's monitor: ten seconds of start, ten of load at 600 W, a row a second.
fn seed4_log() -> String {
    let row = |s: u32| {
        let (watts, busy) = if s < 10 { (80.0, 0) } else { (600.0, 97) };
        format!("2026-01-02T03:04:{s:02}.000000,0,{watts:.2},41,{busy},30,72113\n")
    };
    format!("{HEAD}\n{}", (0..=20).map(row).collect::<String>())
}

fn codes(summary: &PowerSummary) -> Vec<&str> {
    summary.flaws.iter().map(|f| f.code.as_str()).collect()
}

fn close(found: Option<f64>, want: f64) {
    let found = found.unwrap();
    assert!((found / want - 1.0).abs() < 1e-9, "{found} is not {want}");
}

#[test]
fn seed_four_s_number_and_ours_stand_beside_each_other() {
    let log = read(&seed4_log(), "modal").unwrap();
    let whole = log.summary(log.span().unwrap());
    assert_eq!((whole.gpus, whole.samples), (1, 21));
    close(whole.busy_sample_power_w, 600.0);
    // One second of it lies between 80 and 600 W.
    close(whole.energy_j, 9.0 * 80.0 + 340.0 + 10.0 * 600.0);
    assert_eq!(codes(&whole), ["log_covers_start_up"]);
    let busy = log.summary(log.busy_span().unwrap());
    close(busy.power_w, 600.0);
    assert_eq!(codes(&busy), [""; 0]);
}

#[test]
fn a_hole_leaves_no_energy_and_says_so() {
    let is_lost =
        |line: &&str| !["03:04:13", "03:04:14", "03:04:15"].iter().any(|t| line.contains(t));
    let text: String = seed4_log().lines().filter(is_lost).map(|l| format!("{l}\n")).collect();
    let log = read(&text, "modal").unwrap();
    let summary = log.summary(log.busy_span().unwrap());
    assert_eq!(summary.energy_j, None);
    assert_eq!(codes(&summary), ["gap"]);
    close(summary.busy_sample_power_w, 600.0);
}

#[test]
fn logs_of_other_tools_are_told_by_their_heads() {
    let nvidia = "timestamp, index, power.draw [W], temperature.gpu, clocks.current.sm [MHz], clocks.current.memory [MHz], utilization.gpu [%], utilization.memory [%]\n\
        2026/09/11 04:19:41.982, 0, 900.00 W, 61, 1965 MHz, 3996 MHz, 98 %, 74 %\n\
        2026/09/11 04:19:42.982, 0, 912.00 W, 61, 1965 MHz, 3996 MHz, 98 %, 74 %\n\
        2026/09/11 04:19:43.982, 0, 900.00 W, 61, 1965 MHz, 3996 MHz, 98 %, 74 %\n\
        2026/09/11 04:19:43.982, 0, 9";
    let log = read(nvidia, "node1").unwrap();
    assert_eq!(log.maker, "NVIDIA");
    close(log.summary(log.span().unwrap()).energy_j, 1_812.0);
    let srt = "schema_version,timestamp_unix,scrape_seq,hostname,gpu_index,gpu_uuid,power_w\n\
        1,1789948800.0,0,a,0,GPU-a,500\n1,1789948800.0,0,b,0,GPU-b,300\n\
        1,1789948802.0,1,a,0,GPU-a,500\n1,1789948802.0,1,b,0,GPU-b,300\n";
    let log = read(srt, "x").unwrap();
    let summary = log.summary(log.span().unwrap());
    assert_eq!((log.maker.as_str(), summary.gpus), ("srt-slurm", 2));
    close(summary.energy_j, 1_600.0);
    assert_eq!(summary.busy_sample_power_w, None, "it has no utilisation");
    assert_eq!(codes(&summary), ["no_utilisation"]);
    let amd = include_str!("../fixtures/mi300x.csv");
    assert_eq!(read(amd, "x").unwrap().maker, "AMD");
}

#[test]
fn what_is_no_log_is_refused_with_a_reason() {
    for (text, why) in [
        ("", "no log that is known"),
        ("a,b\n1,2\n", "no log that is known"),
        (HEAD, "no row with a time and a power"),
        ("index, power.draw [W]\n0, 7 W\n", "no row with a time and a power"),
    ] {
        assert!(read(text, "x").unwrap_err().contains(why), "{text}");
    }
}

#[test]
fn what_we_write_as_seed_four_is_read_back_as_it_was() {
    let log = read(&seed4_log(), "modal").unwrap();
    let (name, text) = seed4(&log.telemetry, Nanos::ZERO).unwrap();
    assert_eq!(name, "power_log_1gpu_20260102_030400.csv");
    assert_eq!(text, seed4_log());
    assert_eq!(seed4(&Telemetry::default(), Nanos::ZERO), None);
}

#[test]
fn what_was_not_told_is_an_empty_cell() {
    let device =
        Device { host: "a".into(), part: Part::Gpu, name: "x".into(), index: Some(3), role: None };
    let at = Nanos::from_secs(1);
    let readings = vec![Reading { from: at, to: at, value: 99.5 }];
    let series = vec![Series { device, quantity: Quantity::Power, readings }];
    let telemetry = Telemetry { interval: Nanos::from_secs(1), series, ..Telemetry::default() };
    let (_, text) = seed4(&telemetry, Nanos::ZERO).unwrap();
    assert_eq!(text.lines().nth(1).unwrap(), "1970-01-01T00:00:01.000000,3,99.50,,,,");
}

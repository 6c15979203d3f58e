//! Hosts that other programs tell of: the real node_exporter and the real Prometheus against load of known size, and
//! stand-ins for what needs a GPU or another clock.
//!
//! The first need root, `ip`, sshd, `prometheus-node-exporter` and `prometheus`; `ci/test` sets that up.

use crate::hosts::Hosts;
use crate::known::{BURN, CORES, PACED, Truth, measured, within_two_percent};
use crate::power::two_gpus;
use crate::ssh::experiment;
use crate::support::{Lab, first_line, root, truth_server, wait_for};
use crate::usage::{cores_in_use, mean, number, rows, usage, why};
use scalebeam_model::units::Nanos;
use serde_json::Value;
use std::process::{Child, Command, Stdio};

/// Something that ends with its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing is read by scalebeam itself.
const BY_OTHERS: &str = "gpu = false\nhost = false\nrdma = false\n";
/// Some twenty seconds of load.
const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 400\nwarmup = 4\n";

fn node_exporter(hosts: &Hosts, host: &str, address: &str) -> Program {
    let listen = format!("--web.listen-address={address}");
    let program = Program(hosts.start_on(host, &["prometheus-node-exporter", &listen]));
    let page = format!("http://{address}/metrics");
    let asked = ["python3", "-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1])", &page];
    wait_for("a page of node_exporter", || hosts.on_host("ctl", &asked).code == Some(0));
    program
}

/// A server that scrapes `target` once a second, beside scalebeam.
fn prometheus(hosts: &Hosts, target: &str) -> Program {
    let config = hosts.path("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: node\n  static_configs:\n  - targets: ['{target}']\n"
    );
    std::fs::write(&config, text).unwrap();
    let (config, data) = (config.display().to_string(), hosts.path("tsdb").display().to_string());
    let words = [
        "prometheus",
        &format!("--config.file={config}"),
        &format!("--storage.tsdb.path={data}"),
        "--web.listen-address=127.0.0.1:9090",
    ];
    let program = Program(hosts.start_on("ctl", &words));
    let scraped = "import json, urllib.request as u\n\
        a = json.load(u.urlopen('http://127.0.0.1:9090/api/v1/query?query=up'))\n\
        assert a['data']['result'][0]['value'][1] == '1'";
    let asked = ["python3", "-c", scraped];
    wait_for("a scrape", || hosts.on_host("ctl", &asked).code == Some(0));
    program
}

#[test]
#[ignore = "needs root, ip, sshd, node_exporter and Prometheus: run by ci/test"]
fn exporters_tell_of_two_hosts_what_was_done_there() {
    let hosts = Hosts::new(&["a", "b"]);
    let (a, b) = ("10.77.0.1:9100", "10.77.0.2:9100");
    let _exporters = [node_exporter(&hosts, "a", a), node_exporter(&hosts, "b", b)];
    let _server = prometheus(&hosts, b);
    let _burn = Truth::start(&hosts, "a", "burn", BURN);
    let cores = Truth::start(&hosts, "a", "cores", CORES);
    let sent = ["a", "b"].map(|host| (host, Truth::start(&hosts, host, "paced", PACED)));
    let file = experiment(&hosts, &["a", "b"], "ttft = \"100ms\", itl = \"10ms\"", LOAD);
    let text = std::fs::read_to_string(&file).unwrap();
    let pages = format!(
        "[telemetry]\n{BY_OTHERS}prometheus = [\"http://127.0.0.1:9090\"]\n\
         [telemetry.node_exporter]\na = \"http://{a}/metrics\"\n"
    );
    std::fs::write(&file, text + &pages).unwrap();
    let (file, out) = (file.display().to_string(), hosts.path("runs").display().to_string());
    let said = hosts.say(&["run", &file, "--out", &out, "--selftest", "never", "--json"]);
    let results = said.expect_code(0).json();

    let usage = usage(&results);
    let (from, to) = measured(&crate::ssh::only_run(&hosts), "pair");
    let busy = cores.rate(from, to);
    assert!(busy > 0.45, "half a core was burnt: {busy}");
    for (host, sent) in &sent {
        assert_eq!(why(usage, host), "");
        let machine = rows(usage, "hosts", host)[0];
        let read = cores_in_use(machine);
        match *host {
            "a" => within_two_percent("cores by node_exporter", read, busy),
            // Scrapes do not fall on the borders: what was in use between one and a border is taken to be like the rest.
            _ => {
                let bound = 0.02 + 1.0 / (to - from).as_secs_f64();
                assert!((read / busy - 1.0).abs() < bound, "by Prometheus: {read}, truth {busy}");
            }
        }
        let links = rows(usage, "links", host);
        let link = links.iter().find(|link| link["name"] == "eth0").unwrap();
        let read = mean(&link["sent_gbps"]) * 1e9 / 8.0;
        within_two_percent(&format!("bytes per second of {host}"), read, sent.rate(from, to));
    }
    let clock = rows(usage, "clocks", "b")[0];
    let (offset, bound) = (clock["offset_s"].as_f64().unwrap(), clock["bound_s"].as_f64().unwrap());
    assert!(offset.abs() <= bound && bound < 0.1, "the server has this machine's clock: {clock}");
}

/// A stand-in of `tests-support/exporters.py`, its address, and when it began to count.
fn stand_in(args: &[&str]) -> (Program, String, Nanos) {
    let script = root().join("tests-support/exporters.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let line = first_line(&mut child);
    let mut words = line.split_whitespace().skip(1);
    let url = format!("http://127.0.0.1:{}", words.next().unwrap());
    let born = Nanos::from_secs_f64(words.next().unwrap().parse().unwrap());
    (Program(child), url, born)
}

/// A host behind an endpoint, of which only a Prometheus server tells, while that is measured for some seconds.
fn told_by_a_server(args: &[&str]) -> (Value, Nanos, Nanos, Nanos) {
    let (_server, url, born) = stand_in(args);
    let endpoint = truth_server(&["--ttft-ms", "20", "--itl-ms", "10"]);
    let lab = Lab::new(&format!(
        "schema = 1\nname = \"t\"\n[model]\nid = \"plain\"\n[host.node9]\naddr = \"10.0.0.9\"\n\
         [[deploy]]\nname = \"one\"\nplatform = \"external\"\nengine = \"openai\"\nendpoint = \"{}/v1\"\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 16\nosl = 8\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = 280\nwarmup = 4\n\
         repeats = 1\n[telemetry]\n{BY_OTHERS}prometheus = [\"{url}\"]\n",
        endpoint.url
    ));
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    let (from, to) = measured(&lab.run_dir(), "one");
    (results, born, from, to)
}

#[test]
fn what_a_server_kept_is_put_into_our_time_whatever_its_clock_shows() {
    let (results, born, from, to) = told_by_a_server(&["prometheus", "--ahead", "30"]);
    let usage = usage(&results);
    let machine = rows(usage, "hosts", "node9")[0];
    // Its load grows: at another time it is another one.
    let truth = 0.05 * ((from - born).as_secs_f64() + (to - born).as_secs_f64());
    within_two_percent("cores in use", mean(&machine["cpu_pct"]) / 100.0 * 64.0, truth);
    let clock = rows(usage, "clocks", "node9")[0];
    assert!((clock["offset_s"].as_f64().unwrap() - 30.0).abs() < 0.1, "{clock}");
}

#[test]
fn a_server_whose_clock_is_set_meanwhile_gives_no_number_and_says_so() {
    let (results, ..) = told_by_a_server(&["prometheus", "--step", "2.5"]);
    let usage = usage(&results);
    assert_eq!(rows(usage, "hosts", "node9")[0]["cpu_pct"], Value::Null, "{usage:#}");
    let stepped = rows(usage, "clocks", "node9")[0]["stepped_s"].as_f64().unwrap();
    assert!((stepped - 2.5).abs() < 0.1, "{usage:#}");
    let flaws = usage["flaws"].as_array().unwrap();
    let is = |f: &&Value| f["device"] == "node9" && f["code"] == "clock_uncertain";
    assert!(flaws.iter().any(|f| is(&f)), "{flaws:#?}");
    let doubts = results["points"][0]["trust"]["reasons"].to_string();
    assert!(doubts.contains("clock_uncertain"), "{doubts}");
}

/// Two GPUs of this machine that dcgm-exporter tells of, measured for some eight seconds.
fn told_by_dcgm(args: &[&str]) -> Value {
    let (_exporter, url, _) = stand_in(args);
    let lab = two_gpus(96, &format!("[telemetry.dcgm]\nbox = \"{url}/metrics\"\n"));
    lab.say("run", &["--json", "--no-doctor"]).expect_code(0).json()
}

#[test]
fn energy_and_utilisation_by_dcgm_exporter_are_those_of_its_cards() {
    let results = told_by_dcgm(&["dcgm"]);
    let usage = usage(&results);
    let energy = &usage["energy"];
    within_two_percent("watts", number(energy, "mean_w"), 700.0);
    within_two_percent("joules", number(energy, "joules"), 700.0 * number(energy, "seconds"));
    // It gathers once a second, and is asked at the borders until it has: what is missed is how late that comes on a
    // machine that other tests use, and never the second that it would be without.
    let counted = number(energy, "counted_joules");
    let bound = 0.02 + 0.5 / number(energy, "seconds");
    assert!((counted / number(energy, "joules") - 1.0).abs() < bound, "{energy:#}");
    let [first, second] = &usage["gpus"].as_array().unwrap()[..] else { panic!("{usage:#}") };
    within_two_percent("busy", mean(&first["busy_pct"]), 98.0);
    assert!(mean(&second["busy_pct"]).abs() < 1e-9, "{second}");
    within_two_percent("memory in use", mean(&first["memory_pct"]), 100.0 * 72113.0 / 81080.0);
    let metrics = &results["points"][0]["metrics"];
    within_two_percent("utilisation", number(metrics, "gpu_util"), 0.49);
    within_two_percent(
        "tokens per kW",
        number(metrics, "output_tps_per_kw"),
        number(metrics, "output_tps") / 0.7,
    );
    let flaws = usage["flaws"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(flaws.iter().find(|f| f["device"].as_str().unwrap().contains("gpu")), None);
}

#[test]
fn an_energy_counter_that_is_set_back_gives_its_reason_and_the_power_stands() {
    let results = told_by_dcgm(&["dcgm", "--reset"]);
    let usage = usage(&results);
    within_two_percent("watts", number(&usage["energy"], "mean_w"), 700.0);
    assert_eq!(usage["energy"]["counted_joules"], Value::Null, "{usage:#}");
    let flaws = usage["flaws"].as_array().unwrap();
    for gpu in ["box gpu 0", "box gpu 1"] {
        let of = |f: &&Value| f["device"] == gpu && f["quantity"] == "energy_j";
        let flaw = flaws.iter().find(of).unwrap_or_else(|| panic!("{flaws:#?}"));
        assert_eq!(flaw["code"], "counter_reset");
    }
}

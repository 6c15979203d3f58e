//! Power of GPUs and hosts through the binary: stand-ins of the makers' programs, and a controller's page.

use crate::support::{Lab, free_port, root, say, wait_for};
use crate::usage::number;
use scalebeam_model::telemetry::civil;
use scalebeam_model::telemetry::window::LONGEST_GAP;
use scalebeam_model::units::Nanos;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

/// As a driver of branch 580 prints it with `-lms`: a head once, a row a GPU a look.
const NVIDIA_SMI: &str = r#"#!/bin/sh
case "$*" in *-lms*) ;; *) exit 9 ;; esac
echo "index, uuid, utilization.gpu [%], utilization.memory [%], memory.used [MiB], memory.total [MiB], power.draw [W], enforced.power.limit [W], temperature.gpu, clocks.current.sm [MHz], clocks.current.memory [MHz]"
while sleep 0.1; do
  echo "0, GPU-a, 98 %, 41 %, 72113 MiB, 81559 MiB, 612.50 W, 700.00 W, 61, 1755 MHz, 2619 MHz"
  echo "1, GPU-b, 0 %, 0 %, 4 MiB, 81559 MiB, 87.50 W, 700.00 W, 30, 345 MHz, 2619 MHz"
done
"#;

/// As a driver that knows of instances prints a card that is cut into some.
const MIG_SMI: &str = r#"#!/bin/sh
case "$*" in
"--query-gpu=mig.mode.current --format=csv") echo mig.mode.current; echo Enabled; exit ;;
*,mig.mode.current*-lms*) ;;
*) exit 9 ;;
esac
echo "index, uuid, utilization.gpu [%], memory.used [MiB], memory.total [MiB], power.draw [W], mig.mode.current"
while sleep 0.1; do
  echo "0, GPU-a, [N/A], 19534 MiB, 81920 MiB, 184.27 W, Enabled"
  echo "1, GPU-b, 0 %, 3 MiB, 81920 MiB, 61.84 W, Disabled"
done
"#;

const IPMITOOL: &str = r#"#!/bin/sh
[ "$*" = "dcmi power reading" ] || exit 1
echo "
    Instantaneous power reading:                   1400 Watts
    Minimum during sampling period:                  12 Watts
    Power reading state is:                   activated
"
"#;

fn experiment(telemetry: &str) -> Lab {
    let rest = "[output]\nformats = [\"json\", \"csv\", \"md\"]\n\
                [telemetry]\ninterval = \"100ms\"\nseed4_util_floor = 5.0\n";
    two_gpus(20, &format!("{rest}{telemetry}\n"))
}

/// Two GPUs of this machine before a server that answers in known times, which `requests` are sent to; `rest` is the end
/// of the file.
pub(crate) fn two_gpus(requests: u32, rest: &str) -> Lab {
    let script = root().join("tests-support/truth_server.py");
    let port = free_port();
    Lab::new(&format!(
        "schema = 1\nname = \"power\"\n[model]\nid = \"plain\"\n[host.box]\ngpus = 2\ngpu = \"H100-SXM-80G\"\n\
         [[deploy]]\nname = \"mine\"\nplatform = \"local\"\nengine = \"command\"\nport = {port}\n\
         tp = 2\nplace = [\"box:0-1\"]\n\
         args = [\"-B\", \"{}\", \"--host={{host}}\", \"--port\", \"{{port}}\", \"--ttft-ms\", \"20\", \"--itl-ms\", \"10\"]\n\
         params = {{ program = \"python3\" }}\nstop = {{ grace = \"5s\" }}\n\
         ready = {{ timeout = \"60s\", health = \"/health\" }}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 32\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 4\nrequests = {requests}\nwarmup = 4\nrepeats = 1\n{rest}",
        script.display()
    ))
}

fn stand_in(dir: &Path, name: &str, text: &str) {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs with the stand-ins `programs` in front of all others.
fn run(lab: &Lab, programs: &[(&str, &str)]) -> Value {
    let dir = lab.dir.path().join("programs");
    std::fs::create_dir(&dir).unwrap();
    for (name, text) in programs {
        stand_in(&dir, name, text);
    }
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let mut command = lab.command("run");
    command.args(["--json", "--no-doctor"]).env("PATH", path).env("BMC_PASSWORD", "sesame");
    let said: crate::support::Said = command.output().unwrap().into();
    said.expect_code(0).json()
}

#[track_caller]
fn close(found: f64, want: f64) {
    assert!((found / want - 1.0).abs() < 1e-9, "{found} is not {want}");
}

#[test]
fn known_power_of_a_program_alone_gives_exact_energy() {
    let lab = experiment("");
    let results = run(&lab, &[("nvidia-smi", NVIDIA_SMI)]);
    let point = &results["points"][0];
    let usage = &point["trials"][0]["usage"];
    let energy = &usage["energy"];
    assert_eq!(energy["gpus"], 2, "the idle one is paid for too: {usage:#}");
    close(number(energy, "mean_w"), 700.0);
    close(number(energy, "joules"), 700.0 * number(energy, "seconds"));
    let metrics = &point["metrics"];
    close(number(metrics, "busy_sample_power_w"), 612.5);
    close(number(metrics, "output_tps_per_kw"), number(metrics, "output_tps") / 0.7);
    assert_eq!(metrics["host_energy_j"], Value::Null, "{metrics:#}");
    let reasons = point["trust"]["reasons"].as_array().unwrap();
    let only = reasons.iter().find(|r| r["code"] == "gpu_power_only");
    let only = only.unwrap_or_else(|| panic!("{reasons:#?}"));
    assert!(only["message"].as_str().unwrap().contains("power by IPMI"), "{only:#}");
    let md = std::fs::read_to_string(lab.run_dir().join("results.md")).unwrap();
    assert!(md.contains("612.5") || md.contains("700"), "{md}");
}

#[test]
fn a_card_that_is_cut_into_instances_gives_nobody_its_power() {
    let lab = experiment("");
    let results = run(&lab, &[("nvidia-smi", MIG_SMI)]);
    let point = &results["points"][0];
    let usage = &point["trials"][0]["usage"];
    let [card, other] = &usage["gpus"].as_array().unwrap()[..] else { panic!("{usage:#}") };
    assert_eq!((&card["role"], &other["role"]), (&Value::Null, &Value::from("aggregated")));
    close(number(&card["power_w"], "mean"), 184.27);
    assert_eq!(usage["energy"], Value::Null);
    for metric in ["power_w", "energy_j", "joules_per_output_token", "busy_sample_power_w"] {
        assert_eq!(point["metrics"][metric], Value::Null, "{metric}");
    }
    let flaws = usage["flaws"].as_array().unwrap();
    let cut = flaws.iter().find(|f| f["code"] == "cut_into_instances");
    assert_eq!(cut.unwrap_or_else(|| panic!("{flaws:#?}"))["device"], "box gpu 0");
    let reasons = point["trust"]["reasons"].as_array().unwrap();
    let absent = reasons.iter().find(|r| r["code"] == "energy_absent").unwrap();
    assert!(absent["message"].as_str().unwrap().contains("cut into MIG instances"), "{absent:#}");
}

/// The second card falls off its bus while the load runs.
const LOSES_ONE: &str = r#"#!/bin/sh
case "$*" in *-lms*) ;; *) exit 9 ;; esac
echo "index, uuid, power.draw [W]"
n=0
while sleep 0.1; do
  n=$((n + 1))
  echo "0, GPU-a, 612.50 W"
  [ -e "$LOST" ] || echo "1, GPU-b, 87.50 W"
done
"#;

/// A card that the deployment was given is not there, or is not there any more.
#[test]
fn a_missing_card_leaves_no_energy_whether_it_was_never_there_or_fell_out() {
    let never = NVIDIA_SMI.replace("  echo \"1, ", "  true \"1, ");
    let lab = experiment("");
    let usage = &run(&lab, &[("nvidia-smi", &never)])["points"][0]["trials"][0]["usage"];
    assert_eq!(usage["energy"], Value::Null);
    let flaws = usage["flaws"].as_array().unwrap();
    assert_eq!(flaws[0]["code"], "device_missing", "{flaws:#?}");
    assert_eq!(flaws[0]["device"], "box gpu 1", "{flaws:#?}");

    let lab = experiment("");
    let lost = lab.dir.path().join("lost");
    let falls_out = LOSES_ONE.replace("$LOST", &lost.display().to_string());
    let runs = lab.runs();
    let loses = std::thread::spawn(move || {
        wait_for("the load", || crate::interrupt::records(&runs, "mine") > 12);
        std::fs::write(lost, "").unwrap();
    });
    let usage = &run(&lab, &[("nvidia-smi", &falls_out)])["points"][0]["trials"][0]["usage"];
    loses.join().unwrap();
    assert_eq!(usage["energy"], Value::Null);
    let flaws = usage["flaws"].as_array().unwrap();
    let code = flaws.iter().find(|f| f["device"] == "box gpu 1").unwrap()["code"].clone();
    assert!(
        ["not_covered", "gap", "too_few_readings"].contains(&code.as_str().unwrap()),
        "{flaws:#?}"
    );
    close(number(&usage["gpus"][0]["power_w"], "mean"), 612.5);
}

#[test]
fn a_machine_that_its_controller_weighs_has_its_gpus_inside() {
    let lab = experiment("ipmi = true\n");
    let results = run(&lab, &[("nvidia-smi", NVIDIA_SMI), ("ipmitool", IPMITOOL)]);
    let point = &results["points"][0];
    let usage = &point["trials"][0]["usage"];
    close(number(&usage["energy"], "mean_w"), 700.0);
    close(number(&usage["host_energy"], "mean_w"), 1_400.0);
    let metrics = &point["metrics"];
    close(number(metrics, "host_output_tps_per_kw"), number(metrics, "output_tps") / 1.4);
    let reasons = point["trust"]["reasons"].to_string();
    assert!(!reasons.contains("gpu_power_only"), "{reasons}");
}

/// The longest time between two rows of the first card.
fn longest_hole(rows: &str) -> Nanos {
    let mine = rows.lines().filter(|row| row.split(',').nth(1) == Some("0"));
    let times: Vec<Nanos> =
        mine.map(|row| civil::parse(row.split(',').next().unwrap()).unwrap()).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

#[test]
fn power_goes_out_as_seed_four_logs_it_and_comes_back() {
    let lab = experiment("");
    let results = run(&lab, &[("nvidia-smi", NVIDIA_SMI)]);
    let (run_dir, logs) = (lab.run_dir().display().to_string(), lab.dir.path().join("logs"));
    let logs = logs.display().to_string();
    let said = say(["report", &run_dir, "--power-logs", &logs]).expect_code(0);
    let file = said.stdout.trim();
    let name = file.rsplit('/').next().unwrap();
    assert!(name.starts_with("power_log_2gpu_20") && name.ends_with(".csv"), "{name}");
    let text = std::fs::read_to_string(file).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    assert_eq!(
        head,
        "timestamp,gpu_id,power_draw_w,temperature_c,gpu_util_pct,mem_util_pct,mem_used_mb"
    );
    assert!(rows.lines().any(|row| row.ends_with(",0,612.50,61,98,41,72113")), "{rows}");

    let tps = number(&results["points"][0]["metrics"], "output_tps");
    let seed4 = serde_json::json!([{ "n_gpu": 2, "n_users": 4, "config_label": "2GPU/4U", "throughput_total": tps }]);
    let file_of_results = lab.dir.path().join("benchmark_gpu_users_results.json");
    std::fs::write(&file_of_results, seed4.to_string()).unwrap();
    let file_of_results = file_of_results.display().to_string();
    let imported =
        say(["import", file, "--results", &file_of_results, "--json"]).expect_code(0).json();
    // A machine that is too busy to run the stand-in leaves a hole in its log: then there is no number, and why is told.
    if longest_hole(rows) > LONGEST_GAP {
        assert_eq!(imported["logs"][0]["whole"]["power_w"], Value::Null, "{imported:#}");
        assert_eq!(imported["logs"][0]["whole"]["flaws"][0]["code"], "gap", "{imported:#}");
        return;
    }
    close(number(&imported["logs"][0]["whole"], "power_w"), 700.0);
    close(number(&imported["logs"][0]["whole"], "busy_sample_power_w"), 612.5);
    let point = &imported["points"][0];
    close(number(point, "output_tps_per_kw"), tps / 0.7);
    close(number(point, "seed4_output_tps_per_kw"), tps / 1.225);
    assert_eq!(point["flaws"][0]["code"], "one_power_for_all_levels", "{point:#}");
    let shown = say(["import", file, "--results", &file_of_results]).expect_code(0).stdout;
    assert!(shown.contains("GPU power only") && shown.contains("busy_sample_power_w"), "{shown}");

    let no_log = say(["import", &file_of_results]).expect_code(2);
    assert!(no_log.stderr.contains("no power log"), "{}", no_log.stderr);
}

/// What the package of a processor takes, by a counter that begins anew each 0.4 s.
const PACKAGE_W: f64 = 150.0;
const RANGE_UJ: f64 = 60_000_000.0;

/// The counter's program, which ends with the test.
struct Counter(Child);

impl Counter {
    fn start(dir: &Path) -> Self {
        let script = root().join("tests-support/powercap.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(script).arg(dir);
        let child = command.args([PACKAGE_W.to_string(), RANGE_UJ.to_string()]).spawn().unwrap();
        wait_for("the counter", || dir.join("intel-rapl:0/energy_uj").exists());
        Self(child)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a `/sys` of its own is seen that has the counter's. What nobody may read is no link, and missed by nobody.
const WITH_POWERCAP: &str = r#"
set -e
cp -a /sys/class "$1/class" 2>/dev/null || true
ln -s "$2" "$1/class/powercap"
mount --bind "$1/class" /sys/class
shift 2
exec "$@"
"#;

#[test]
#[ignore = "mounts a /sys/class of its own: ci/test runs it"]
fn counters_of_processors_that_wrap_give_the_energy_that_was_used() {
    let lab = two_gpus(60, "[output]\nformats = [\"json\"]\n[telemetry]\ninterval = \"100ms\"\n");
    let programs = lab.dir.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    stand_in(&programs, "nvidia-smi", NVIDIA_SMI);
    let powercap = lab.dir.path().join("powercap");
    let _counter = Counter::start(&powercap);
    let planned = lab.command("run");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_POWERCAP, "sh"]);
    command.args([lab.dir.path(), &powercap]).arg(planned.get_program());
    command.args(planned.get_args()).args(["--json", "--no-doctor"]);
    command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()));
    let said: crate::support::Said = command.output().unwrap().into();
    let results = said.expect_code(0).json();

    let usage = &results["points"][0]["trials"][0]["usage"];
    let energy = &usage["host_energy"];
    let wraps = number(energy, "seconds") * PACKAGE_W * 1e6 / RANGE_UJ;
    assert!(wraps > 2.0, "the counter started anew {wraps} times only");
    let counted = &energy["by_host"][0]["counted"];
    assert_eq!(counted[0], "package intel-rapl:0 package-0", "{usage:#}");
    let of_package = number(energy, "mean_w") - 700.0;
    assert!(
        (of_package / PACKAGE_W - 1.0).abs() < 0.02,
        "{of_package} W of {PACKAGE_W}: {usage:#}"
    );
    assert_eq!(usage["flaws"], Value::Null, "{usage:#}");
}

/// A controller that wants to know who asks, as they all do. It ends with the test's process.
fn controller() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let n = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
            // "reader:sesame"
            let is_known = request.contains("authorization: basic cmvhzgvyonnlc2ftzq==");
            let is_there = request.starts_with("get /redfish/v1/chassis/1/power ");
            let (status, body) = match is_known && is_there {
                true => ("200 OK", r#"{"PowerControl": [{"PowerConsumedWatts": 1250.0}]}"#),
                false => ("401 Unauthorized", "{}"),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n");
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}/redfish/v1/Chassis/1/Power")
}

#[test]
fn redfish_is_asked_with_a_password_that_only_the_environment_holds() {
    let page = format!("[telemetry.redfish.box]\nurl = \"{}\"\n", controller());
    let known = "user = \"reader\"\npassword_env = \"BMC_PASSWORD\"\n";
    let lab = experiment(&(page.clone() + known));
    let results = run(&lab, &[("nvidia-smi", NVIDIA_SMI)]);
    let usage = &results["points"][0]["trials"][0]["usage"];
    close(number(&usage["host_energy"], "mean_w"), 1_250.0);
    assert_eq!(usage["host_energy"]["by_host"][0]["counted"][0], "chassis redfish");
    for file in ["plan.json", "results.json"] {
        let text = std::fs::read_to_string(lab.run_dir().join(file)).unwrap();
        assert!(!text.contains("sesame"), "{file}");
    }

    let stranger = experiment(&page);
    let results = run(&stranger, &[("nvidia-smi", NVIDIA_SMI)]);
    let usage = &results["points"][0]["trials"][0]["usage"];
    assert_eq!(usage["host_energy"], Value::Null);
    assert!(usage["absent"].to_string().contains("HTTP 401"), "{usage:#}");
}

#[test]
fn half_a_credential_and_hosts_that_nobody_knows_are_refused() {
    let text = "[telemetry.redfish.bx]\nurl = \"bmc/Power\"\nuser = \"reader\"\n";
    let said = experiment(text).say("check", &[]).expect_code(2);
    for why in ["there is no host 'bx'", "'bmc/Power' is no address", "go together"] {
        assert!(said.stderr.contains(why), "{why}: {}", said.stderr);
    }
}

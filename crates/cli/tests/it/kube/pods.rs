//! What is read of pods: the agents there, by the real `kubectl exec`, and what becomes of them.
//!
//! Pods of these tests are processes in namespaces and control groups of their own, which needs root.

use super::{Cluster, K8S, MODEL, NODE_PORT};
use crate::interrupt::signal;
use crate::support::{Said, json_lines, marked_processes, wait_for};
use crate::usage::{mean, rows, usage, why};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Where each pod answers.
pub(super) const PORT: &str = "8000";

/// The command line of an emulated engine in a pod.
pub(super) fn serve() -> String {
    let scalebeam = env!("CARGO_BIN_EXE_scalebeam");
    format!("{scalebeam} serve --host 0.0.0.0 --port {PORT} --ttft 20ms --itl 5ms --model {MODEL}")
}

impl Cluster {
    /// Replicas of an emulated engine, each in a pod. Nobody may execute the agent where it is: it has to be copied.
    fn of_pods(replicas: u32) -> Self {
        Self::of_pods_that_run(&serve(), replicas)
    }

    fn of_pods_that_run(command: &str, replicas: u32) -> Self {
        let scalebeam = env!("CARGO_BIN_EXE_scalebeam");
        let deploy = format!("{K8S}\nreplicas = {replicas}\n{NODE_PORT}");
        let cluster = Self::answering(&deploy, &["--container", command], None, PORT);
        let program = cluster.path("agent-program");
        let stripped = Command::new("strip").arg("-o").args([&program, &scalebeam.into()]).status();
        assert!(stripped.unwrap().success());
        let chmod = Command::new("chmod").arg("644").arg(&program).status();
        assert!(chmod.unwrap().success());
        let telemetry = "[telemetry]\ninterval = \"100ms\"\nagent = \"agent-program\"\n\
                         [output]\nformats = [\"csv\"]\n[[workload]]";
        cluster.rewrite("[[workload]]", telemetry);
        cluster.rewrite("osl = 8", "osl = 32");
        cluster
    }

    fn pods(&self) -> Vec<String> {
        let names = self.there();
        names.lines().filter_map(|l| l.strip_prefix("pod/")).map(str::to_owned).collect()
    }

    /// Agents in the pods, whose processes this machine sees.
    fn agents(&self) -> Vec<String> {
        let all = marked_processes(&self.lab.runs()).into_iter().map(|(_, command)| command);
        all.filter(|command| command.contains(" agent --id one/agent/")).collect()
    }

    /// Pids of what is executed in pods for us at present.
    fn kubectls(&self) -> Vec<u32> {
        let own = format!("KUBECONFIG={}", self.path("kubeconfig").display());
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let has = |pid: &u32, file: &str, is: &dyn Fn(&str) -> bool| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).split('\0').any(is)
        };
        let ours = pids.filter(|pid| has(pid, "environ", &|v| v == own));
        let by_kubectl = ours.filter(|pid| has(pid, "cmdline", &|v| v.contains("kubectl")));
        by_kubectl.filter(|pid| has(pid, "cmdline", &|v| v == "exec")).collect()
    }

    #[track_caller]
    fn no_agent_is_left(&self) {
        assert_eq!(marked_processes(&self.lab.runs()), []);
        wait_for("no kubectl", || self.kubectls().is_empty());
    }

    /// A run whose load is under way, with an agent in each of its pods.
    fn under_load(&self, pods: usize) -> std::process::Child {
        self.rewrite("requests = 6", "requests = 100000");
        let mut run = self.command("run");
        let run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.until_records();
        // Each is a shell that waits for it, and the program.
        assert_eq!(self.agents().len(), 2 * pods, "{:?}", marked_processes(&self.lab.runs()));
        run
    }

    /// Waits until some requests of the load were answered.
    fn until_records(&self) {
        wait_for("the load", || {
            let dirs = std::fs::read_dir(self.lab.runs()).into_iter().flatten().flatten();
            let mut open = dirs.map(|d| d.path().join("points/one/l/c2/1/requests.open.jsonl"));
            open.any(|file| json_lines(&file).len() > 4)
        });
    }
}

/// CPU of the processes of a pod together.
fn cores_of_processes(usage: &Value, pod: &str) -> f64 {
    rows(usage, "processes", pod).into_iter().map(|p| mean(&p["cpu_cores"])).sum()
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn every_pod_is_watched_from_inside_and_nothing_is_left_of_it() {
    let cluster = Cluster::of_pods(2);
    cluster.rewrite("requests = 6", "requests = 60");
    let said = cluster.say("run", &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    let results = said.json();
    let usage = usage(&results);
    let pods = usage["pods"].as_array().unwrap_or_else(|| panic!("{}", said.stderr));
    assert_eq!(pods.len(), 2, "{usage:#} {}", said.stderr);
    for row in pods {
        let pod = row["host"].as_str().unwrap();
        assert_eq!((&row["node"], &row["role"]), (&"n1".into(), &"aggregated".into()), "{row}");
        // As the pods of kube_pods.py are made.
        assert_eq!(row["limit_cores"], 1.5, "{row}");
        assert_eq!(row["memory_limit_bytes"], f64::from(512 << 20), "{row}");
        let memory = mean(&row["memory_bytes"]);
        assert!(memory > 1e6 && memory < f64::from(512 << 20), "{row}");
        // Two accounts of the same time: that of the group, and those of the processes in it.
        let (cores, processes) = (mean(&row["cpu_cores"]), cores_of_processes(usage, pod));
        assert!(
            cores > 0.0 && (cores - processes).abs() < 0.05 + 0.2 * cores,
            "{cores} {processes}"
        );
        let of_pod = rows(usage, "processes", pod);
        let engine = of_pod.iter().find(|p| p["name"] == "main 1 scalebeam");
        let engine = engine.unwrap_or_else(|| panic!("no engine in {of_pod:#?}"));
        assert_eq!(engine["role"], "aggregated");
        assert!(mean(&engine["memory_bytes"]) > 1e6, "{engine}");
        assert!(of_pod.iter().any(|p| p["name"] == "telemetry agent"), "{of_pod:#?}");
        let links = rows(usage, "links", pod);
        let link =
            links.iter().find(|l| l["name"] == "eth0").unwrap_or_else(|| panic!("{links:#?}"));
        assert!(mean(&link["sent_gbps"]) > mean(&link["received_gbps"]), "it streams: {link}");
        let clock = rows(usage, "clocks", pod)[0];
        let of_clock = |key: &str| clock[key].as_f64().unwrap();
        // Pods have this machine's clock.
        assert!(of_clock("offset_s").abs() <= of_clock("bound_s"), "{clock}");
        assert!(of_clock("bound_s") < 0.1, "{clock}");
    }
    // This machine sees the processes of these pods, and they are none of its own.
    let here = rows(usage, "processes", "localhost");
    assert!(here.iter().all(|p| p["name"] == "load generator"), "{here:#?}");
    assert!(why(usage, "n1").contains("node_exporter"), "{usage:#}");
    cluster.nothing_left();
    cluster.no_agent_is_left();
    let journal = std::fs::read_to_string(cluster.lab.run_dir().join("journal.jsonl")).unwrap();
    let table = std::fs::read_to_string(cluster.lab.run_dir().join("machines.csv")).unwrap();
    for pod in pods.iter().map(|row| row["host"].as_str().unwrap()) {
        let id = format!("\"process\":\"one/agent/{pod}\"");
        for event in ["process_intent", "process_started", "process_gone"] {
            let is = |line: &&str| line.contains(event) && line.contains(&id);
            assert_eq!(journal.lines().filter(is).count(), 1, "{event} of {pod}: {journal}");
        }
        for row in ["pod,n1,aggregated,cpu_cores", "nic,eth0,,sent_gbps", "clock,"] {
            assert!(table.contains(&format!(",{pod},{row}")), "no {row} in {table}");
        }
        let row = format!(",{pod},process,main 1 scalebeam,aggregated,cpu_cores,");
        assert!(table.contains(&row), "no {row} in {table}");
    }
}

/// Keeps the link of its pod full, which lets 20 Mbit/s through, beside an engine.
const FILL: &str = "tc qdisc add dev eth0 root tbf rate 20mbit burst 16kb limit 1mb\n\
                    python3 - <<END &\nimport socket\n\
                    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)\n\
                    own = \"$(ip -4 -o address show eth0 | awk '{ print $4 }')\".split(\"/\")[0]\n\
                    net, last = own.rsplit(\".\", 1)\n\
                    while True:\n    s.sendto(bytes(1200), (f\"{net}.{int(last) - 1}\", 9))\nEND\n";

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn what_a_pod_s_link_lets_through_is_what_it_is_read_to_carry() {
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), format!("{FILL}exec {}\n", serve())).unwrap();
    let cluster = Cluster::of_pods_that_run(&format!("sh {}", script.path().display()), 1);
    cluster.rewrite("requests = 6", "requests = 40");
    let said = cluster.say("run", &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    let results = said.json();
    let usage = usage(&results);
    let links = usage["links"].as_array().unwrap().iter();
    let mut sent = links.filter(|l| l["host"] != "localhost" && l["name"] == "eth0");
    let sent_gbps = mean(&sent.next().unwrap_or_else(|| panic!("{usage:#}"))["sent_gbps"]);
    assert!((sent_gbps / 0.02 - 1.0).abs() < 0.02, "{sent_gbps}");
    cluster.nothing_left();
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_connection_to_a_pod_that_breaks_costs_no_reading() {
    let cluster = Cluster::of_pods(2);
    cluster.rewrite("requests = 6", "requests = 60");
    let mut run = cluster.command("run");
    let run = run.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    cluster.until_records();
    let ways = cluster.kubectls();
    assert_eq!(ways.len(), 2, "a way to each agent");
    ways.into_iter().for_each(|pid| signal(pid, "KILL"));
    let said: Said = run.wait_with_output().unwrap().into();
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    let results = said.json();
    let usage = usage(&results);
    let pods = usage["pods"].as_array().unwrap_or_else(|| panic!("{usage:#}"));
    assert_eq!(pods.iter().filter(|pod| mean(&pod["cpu_cores"]) > 0.0).count(), 2, "{pods:#?}");
    let flaws = usage["flaws"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_pods = |flaw: &&Value| flaw["device"].as_str().unwrap().starts_with("one-");
    // Of those that carried the connection there is none to the end.
    let of_pods = flaws.iter().filter(of_pods).filter(|f| f["quantity"] == "pod_cpu_s");
    assert_eq!(of_pods.count(), 0, "{flaws:#?}");
    cluster.nothing_left();
    cluster.no_agent_is_left();
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn after_kill_9_down_takes_the_pods_away_and_the_agents_with_them() {
    let cluster = Cluster::of_pods(2);
    let mut run = cluster.under_load(2);
    signal(run.id(), "KILL");
    run.wait().unwrap();
    wait_for("no kubectl", || cluster.kubectls().is_empty());
    assert_eq!(cluster.agents().len(), 4, "they outlive who asked for them");
    let down = cluster.say("down", &[]).expect_code(0);
    assert!(down.stdout.contains("pod/one-"), "{down:#?}");
    cluster.nothing_left();
    cluster.no_agent_is_left();
    let again = cluster.say("down", &[]).expect_code(0);
    assert!(again.stdout.contains("nothing left"), "{again:#?}");
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn an_agent_is_ended_in_a_pod_that_stays() {
    let cluster = Cluster::of_pods(1);
    cluster.rewrite("grace = \"1s\"", "grace = \"0s\"");
    let mut run = cluster.under_load(1);
    signal(run.id(), "KILL");
    run.wait().unwrap();
    cluster.behave("stuck");
    let down: Said = cluster.say("down", &[]);
    assert_eq!(down.code, Some(4), "{down:#?}");
    let pods = cluster.pods();
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    let ended = format!("one/agent/{pod} on {pod}: terminated");
    assert!(down.stdout.contains(&ended), "{down:#?}");
    cluster.no_agent_is_left();
    let mut left = Command::new("kubectl");
    left.env("KUBECONFIG", cluster.path("kubeconfig")).args(["exec", pod, "--", "ls", "/mnt"]);
    let left: Said = left.output().unwrap().into();
    assert_eq!(left.expect_code(0).stdout, "", "what it wrote");
    cluster.behave("ready");
    cluster.say("down", &[]).expect_code(0);
    cluster.nothing_left();
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_pod_that_cannot_have_an_agent_is_absent_with_the_reason_and_the_run_goes_on() {
    let cluster = Cluster::of_pods(3);
    let words = [("-0", "forbidden"), ("-1", "no-shell"), ("-2", "read-only")];
    let lines: String = words.iter().map(|(end, word)| format!("{end} {word}\n")).collect();
    std::fs::write(cluster.path("pods"), lines).unwrap();
    let said = cluster.say("run", &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    let results = said.json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 6, "{results:#}");
    let absent = usage(&results)["absent"].as_array().unwrap();
    for (end, reason, hint) in [
        ("-0", "is forbidden: User", "`create` and `get` of pods/exec"),
        ("-1", "executable file not found in $PATH", "its image has no shell"),
        ("-2", "Read-only file system", "TMPDIR in the deployment's env"),
    ] {
        let is = |a: &&Value| a["what"] == "the pod" && a["host"].as_str().unwrap().ends_with(end);
        let why =
            absent.iter().find(is).unwrap_or_else(|| panic!("{absent:#?}"))["why"].to_string();
        assert!(why.contains(reason) && why.contains(hint), "{end}: {why}");
    }
    assert_eq!(usage(&results)["pods"], Value::Null);
    cluster.nothing_left();
    cluster.no_agent_is_left();
}

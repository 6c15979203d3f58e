//! `run --in-cluster`: a Job that the tests' API server runs for real, with the real kubectl outside and inside of it.
//!
//! The pod of the Job is this machine's file system with the scalebeam under test, a service account's token, and
//! rights that are enforced. That needs root.

use super::{Cluster, K8S};
use crate::interrupt::signal;
use crate::kube::pods::{PORT, serve};
use crate::support::{Lab, Said, marked_processes, say, wait_for};
use std::process::{Child, Command, Stdio};

const PARAMS: &str = "params = { client_image = \"registry.example/scalebeam:1\" }";

/// A cluster that runs Jobs, and the image that they run.
struct Site {
    cluster: Cluster,
    image: tempfile::TempDir,
}

impl Site {
    fn new(params: &str) -> Self {
        let image = tempfile::tempdir().unwrap();
        let program = image.path().join("scalebeam");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_scalebeam"));
        assert!(strip.status().unwrap().success());
        let pods = serve();
        let api = ["--container", &pods, "--image", image.path().to_str().unwrap()];
        let cluster = Cluster::answering(&format!("{K8S}\n{params}"), &api, None, PORT);
        // What it makes of a run of a second is for other tests.
        cluster.rewrite("[[workload]]", "[output]\nformats = [\"csv\"]\n[[workload]]");
        Self { cluster, image }
    }

    fn add(&self, text: &str) {
        let file = self.cluster.lab.file();
        let all = std::fs::read_to_string(&file).unwrap() + text;
        std::fs::write(file, all).unwrap();
    }

    fn run(&self, more: &[&str]) -> Said {
        self.cluster.command("run").arg("--in-cluster").args(more).output().unwrap().into()
    }

    /// A run that ends for reasons that have `words`.
    fn cannot_be_measured(&self, words: &[&str]) {
        let said = self.run(&[]).expect_code(4);
        for words in words {
            assert!(said.stderr.contains(words), "no {words}: {said:#?}");
        }
        self.nothing_left();
    }

    /// A run whose load is under way in its pod.
    fn under_load(&self) -> Child {
        self.cluster.rewrite("requests = 6", "requests = 100000");
        let mut run = self.cluster.command("run");
        let run = run.arg("--in-cluster").stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = run.spawn().unwrap();
        wait_for("records in the pod", || self.records() > 10);
        run
    }

    /// Records that the load in the pod has so far.
    fn records(&self) -> usize {
        let count = "cat /runs/*/points/one/l/c2/1/requests.open.jsonl | wc -l";
        let Some(pod) = self.pod() else { return 0 };
        let said = self.kubectl(&["exec", &pod, "--", "sh", "-c", count]);
        said.stdout.trim().parse().unwrap_or(0)
    }

    fn pod(&self) -> Option<String> {
        let names = self.cluster.there();
        names.lines().find_map(|l| l.strip_prefix("pod/client-")).map(|n| format!("client-{n}"))
    }

    fn kubectl(&self, args: &[&str]) -> Said {
        let mut kubectl = Command::new("kubectl");
        kubectl.env("KUBECONFIG", self.cluster.path("kubeconfig")).args(args);
        kubectl.output().unwrap().into()
    }

    /// Its process around the run, and the run, as this machine sees them.
    fn insiders(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let words =
            |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is = |pid: &u32| {
            let words = words(*pid);
            words.starts_with("scalebeam\0inside\0run\0") || words.contains("\0--inside-as\0")
        };
        let root = |pid: &u32| std::fs::metadata(format!("/proc/{pid}/root/image")).is_ok();
        pids.filter(is).filter(root).collect()
    }

    #[track_caller]
    fn nothing_left(&self) {
        self.cluster.nothing_left();
        assert_eq!(self.insiders(), [0_u32; 0]);
    }

    fn journal(&self) -> String {
        std::fs::read_to_string(self.cluster.lab.run_dir().join("journal.jsonl")).unwrap()
    }
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn one_command_measures_in_the_cluster_and_leaves_the_run_here() {
    let site = Site::new(PARAMS);
    let said = site.run(&["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    let results = said.json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 6, "{results:#}");
    assert!(said.stderr.contains("inside: one: ready after"), "{said:#?}");
    site.nothing_left();
    let dir = site.cluster.lab.run_dir();
    let report = say(["report", dir.to_str().unwrap(), "--json"]);
    assert_eq!(report.code, said.code, "{report:#?}");
    assert_eq!(report.json()["points"], results["points"]);
    for file in ["points/one/l/c2/1/requests.parquet", "fingerprint.json", "journal.inside.jsonl"] {
        assert!(dir.join(file).is_file(), "no {file}");
    }
    assert!(!dir.join("fetched.tmp").exists());
    // What it would take away after a crash was known before anything was there, and is gone.
    let journal = site.journal();
    let at = |event: &str, of: &str| {
        let is = |l: &&str| l.contains(event) && l.contains(&format!("\"deployment\":\"{of}\""));
        journal
            .lines()
            .position(|l| is(&l))
            .unwrap_or_else(|| panic!("no {event} of {of}: {journal}"))
    };
    assert!(at("platform_intent", "one") < at("platform_accepted", "the client"), "{journal}");
    assert!(at("platform_gone", "the client") < at("platform_gone", "one"), "{journal}");
    let again = site.cluster.say("down", &[]).expect_code(0);
    assert!(again.stdout.contains("nothing left"), "{again:#?}");
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn files_go_along_a_claim_keeps_the_run_and_what_it_expects_decides() {
    let with_claim = PARAMS.replace(" }", ", results_pvc = \"results\", context = \"lab\" }");
    let site = Site::new(&with_claim);
    std::fs::create_dir(site.cluster.path("prompts")).unwrap();
    std::fs::write(site.cluster.path("prompts/p.jsonl"), "{\"prompt\": \"what is $HOME\"}\n")
        .unwrap();
    let file = "kind = \"file\"\nfile = \"prompts/p.jsonl\"\nmax_tokens = 4";
    site.cluster.rewrite("kind = \"synthetic\"\nisl = 32\nosl = 8\nseed = 1", file);
    site.add("[[expect]]\nmetric = \"ttft.p50\"\nop = \"<=\"\nvalue = 0.001\n");
    let said = site.run(&[]).expect_code(1);
    assert!(said.stderr.contains("inside: prompts/p.jsonl (jsonl): "), "{said:#?}");
    assert!(said.stdout.contains("ttft.p50 <= 0.001"), "{said:#?}");
    site.nothing_left();
    let dir = site.cluster.lab.run_dir();
    let kept = site.cluster.path("claims/results").join(dir.file_name().unwrap());
    let manifest =
        |dir: &std::path::Path| std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    assert_eq!(manifest(&kept), manifest(&dir));
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_pod_that_cannot_begin_ends_it_with_what_was_said_and_what_to_do() {
    for (word, code, said_of, hint) in [
        ("image", 4, "ImagePullBackOff: Back-off pulling image", "check `client_image` in params"),
        (
            "quota",
            4,
            "exceeded quota: compute, requested: pods=1",
            "free some of the namespace's quota",
        ),
        ("unschedulable", 4, "Unschedulable: 0/3 nodes are available", "make room for a pod"),
    ] {
        let site = Site::new(PARAMS);
        site.cluster.rewrite("30s", "3s");
        std::fs::write(site.cluster.path("job"), word).unwrap();
        let said = site.run(&[]).expect_code(code);
        assert!(said.stderr.contains(said_of) && said.stderr.contains(hint), "{word}: {said:#?}");
        site.nothing_left();
    }
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_pod_that_may_not_be_asked_ends_it_at_once() {
    let site = Site::new(PARAMS);
    std::fs::write(site.cluster.path("pods"), "-x7k2p forbidden\n").unwrap();
    site.cannot_be_measured(&[
        "cannot create resource \"pods/exec\"",
        "see `kubectl auth can-i --list`",
    ]);
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn an_image_without_scalebeam_is_told() {
    let site = Site::new(PARAMS);
    std::fs::remove_file(site.image.path().join("scalebeam")).unwrap();
    site.cannot_be_measured(&[
        "StartError, exit status 128",
        "must have scalebeam and kubectl on its PATH",
    ]);
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn interrupted_once_it_drains_inside_and_is_fetched() {
    let site = Site::new(PARAMS);
    let run = site.under_load();
    signal(run.id(), "INT");
    let said = Said::from(run.wait_with_output().unwrap()).expect_code(130);
    assert!(said.stderr.contains("inside: interrupted: finishing what is in flight"), "{said:#?}");
    site.nothing_left();
    let dir = site.cluster.lab.run_dir();
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    assert!(manifest.contains("\"interrupted\""), "{manifest}");
    let trial = dir.join("points/one/l/c2/1");
    let files = std::fs::read_dir(&trial).unwrap().map(|e| e.unwrap().file_name());
    assert!(trial.join("requests.open.jsonl").is_file(), "{:?}", files.collect::<Vec<_>>());
    assert!(!said.stderr.contains("--resume"), "a run in a pod ends with it: {said:#?}");
    let resumed = say(["run", "--resume", dir.to_str().unwrap()]).expect_code(2);
    assert!(resumed.stderr.contains("run FILE --in-cluster"), "{resumed:#?}");
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn interrupted_twice_nothing_is_waited_for_and_nothing_is_left() {
    let site = Site::new(PARAMS);
    let run = site.under_load();
    signal(run.id(), "INT");
    wait_for("it heard", || {
        site.kubectl(&["logs", &site.pod().unwrap()]).stdout.contains("interrupted")
    });
    signal(run.id(), "INT");
    Said::from(run.wait_with_output().unwrap()).expect_code(130);
    site.nothing_left();
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn after_kill_9_down_has_the_pod_take_down_what_it_made() {
    let site = Site::new(PARAMS);
    let mut run = site.under_load();
    signal(run.id(), "KILL");
    run.wait().unwrap();
    assert!(!site.insiders().is_empty(), "it outlives who sent it");
    let down = site.cluster.say("down", &[]).expect_code(0);
    assert!(down.stdout.contains("job.batch/client-"), "{down:#?}");
    assert!(!down.stdout.contains("deployment.apps/one-"), "the pod did that: {down:#?}");
    site.nothing_left();
    let again = site.cluster.say("down", &[]).expect_code(0);
    assert!(again.stdout.contains("nothing left"), "{again:#?}");
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn after_kill_9_of_both_down_removes_what_the_pod_could_not() {
    let site = Site::new(PARAMS);
    let mut run = site.under_load();
    signal(run.id(), "KILL");
    run.wait().unwrap();
    // The first process of a pod takes all others along.
    signal(*site.insiders().iter().min().unwrap(), "KILL");
    let down = site.cluster.say("down", &[]).expect_code(0);
    for what in ["job.batch/client-", "deployment.apps/one-"] {
        assert!(down.stdout.contains(what), "no {what}: {down:#?}");
    }
    site.nothing_left();
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_pod_that_dies_in_the_middle_is_told_and_nothing_of_it_is_left() {
    for (word, reason, hint) in [
        ("ready", "Error, exit status 137", "what else its node had to do"),
        ("killed-oom", "OOMKilled, exit status 137", "for want of memory: see the limits"),
    ] {
        let site = Site::new(PARAMS);
        std::fs::write(site.cluster.path("job"), word).unwrap();
        let run = site.under_load();
        let first = *site.insiders().iter().min().unwrap();
        signal(first, "KILL");
        let said = Said::from(run.wait_with_output().unwrap()).expect_code(4);
        let reason = format!("container client: {reason}");
        for words in [reason.as_str(), hint, "one: ready after"] {
            assert!(said.stderr.contains(words), "no {words}: {said:#?}");
        }
        site.nothing_left();
        assert!(site.journal().contains("platform_gone"));
        assert!(site.cluster.lab.run_dir().join("manifest.json").is_file());
    }
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_run_that_is_cut_on_its_way_is_fetched_again() {
    let site = Site::new(PARAMS);
    site.cluster.rewrite("requests = 6", "requests = 60");
    std::fs::write(site.cluster.path("cut"), "").unwrap();
    let said = site.run(&["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
    assert!(said.stderr.contains("did not come whole, trying again"), "{said:#?}");
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 60, "{said:#?}");
    assert!(!site.cluster.path("cut").exists());
    site.nothing_left();
}

#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_run_that_is_killed_in_its_pod_is_fetched_as_far_as_it_came() {
    let site = Site::new(PARAMS);
    let run = site.under_load();
    let last = *site.insiders().iter().max().unwrap();
    signal(last, "KILL");
    let said = Said::from(run.wait_with_output().unwrap()).expect_code(4);
    assert!(said.stderr.contains("was ended by signal 9; what it had measured"), "{said:#?}");
    site.nothing_left();
    let dir = site.cluster.lab.run_dir();
    assert!(dir.join("points/one/l/c2/1/requests.open.jsonl").is_file());
    let report = say(["report", dir.to_str().unwrap(), "--json"]);
    assert_eq!(report.json()["incomplete"], true, "{report:#?}");
}

/// As where its node is drained: it has its grace, in which its run ends and is fetched.
#[test]
#[ignore = "needs root and kubectl: run by ci/test"]
fn a_run_whose_pod_somebody_deletes_is_fetched_within_its_grace() {
    let site = Site::new(PARAMS);
    let run = site.under_load();
    let pod = site.pod().unwrap();
    let job = pod.rsplit_once('-').unwrap().0;
    site.kubectl(&["delete", "jobs", job, "--wait=false"]).expect_code(0);
    let said = Said::from(run.wait_with_output().unwrap()).expect_code(130);
    site.nothing_left();
    let dir = site.cluster.lab.run_dir();
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    assert!(manifest.contains("\"interrupted\""), "{manifest}");
    assert!(dir.join("points/one/l/c2/1/requests.open.jsonl").is_file(), "{said:#?}");
}

/// An experiment with these deployments, each with its platform and parameters.
fn refused(deployments: &[(&str, &str)]) -> Said {
    let mut text = "schema = 1\nname = \"lab\"\n[model]\nid = \"m\"\n".to_owned();
    for (name, keys) in deployments {
        text += &format!("[[deploy]]\nname = \"{name}\"\n{keys}\n");
    }
    text += "[[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nseed = 1\n[[load]]\nname = \"l\"\n\
             workload = \"w\"\nmode = \"closed\"\nconcurrency = 2\nrequests = 6\n";
    let lab = Lab::new(&text);
    let said = lab.say("run", &["--in-cluster"]).expect_code(2);
    assert!(!lab.runs().exists(), "nothing was begun");
    assert_eq!(marked_processes(&lab.runs()), []);
    said
}

#[test]
fn what_one_job_cannot_measure_is_refused_with_its_key() {
    let on = |params: &str| format!("{K8S}\nparams = {{ {params} }}");
    let image = "client_image = \"i\"";
    let (bare, here) = (on("cpus = 4"), on(image));
    let elsewhere = on(&format!("{image}, context = \"other\""));
    let keyed = on(&format!("{image}, env_secret = \"keys\""));
    let local =
        "platform = \"local\"\nengine = \"emulated\"\nparams = { ttft = \"1ms\", itl = \"1ms\" }";
    for (deployments, key, said_of, hint) in [
        (
            [("a", here.as_str()), ("b", bare.as_str())],
            "deploy[1].params.client_image",
            "'b' names no image for the pod that measures it",
            "add client_image = \"REPOSITORY:TAG\"",
        ),
        (
            [("a", here.as_str()), ("b", elsewhere.as_str())],
            "deploy[1].params.context",
            "context of 'b' is 'other', of 'a' none",
            "--deploy",
        ),
        (
            [("a", here.as_str()), ("b", keyed.as_str())],
            "deploy[1].params.env_secret",
            "env_secret of 'b' is 'keys', of 'a' none",
            "--deploy",
        ),
        (
            [("a", here.as_str()), ("b", local)],
            "deploy[1].platform",
            "'b' is on platform local, which has no pods",
            "without --in-cluster",
        ),
    ] {
        let said = refused(&deployments).stderr;
        for words in [key, said_of, hint] {
            assert!(said.contains(words), "no {words} in {said}");
        }
    }
}

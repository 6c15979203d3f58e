//! Deployments as jobs of a real Slurm: munged, slurmctld and two slurmd of the test's own, on this machine.
//!
//! They need root and Slurm's programs; `ci/test` sets that up and runs them by name.

mod doctor;
mod dynamo;
mod llama;
mod machines;
mod pools;
mod scratch;

use crate::interrupt::{records, signal};
use crate::support::{
    Said, free_port, marked_processes, root, scalebeam, setting, wait_for, with_nixl,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 80\nwarmup = 4\n";
/// One that is not over before something has happened to it.
const LONG: &str =
    "mode = \"closed\"\nconcurrency = 4\nrequests = 100000\nwarmup = 4\ntimeout = \"5s\"\n";
const FAST: &str = "ttft = \"10ms\", itl = \"2ms\"";
const SLOW: &str = "ttft = \"100ms\", itl = \"10ms\"";

/// A cluster of two nodes, `n1` and `n2`, with two GPUs each that are files. It ends with this value.
struct Cluster {
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

/// What the nodes see of this machine's disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Shared,
    /// No run directory.
    Apart,
    /// All of it, but for the programs of the test on `n2`.
    Bare,
}

impl Cluster {
    fn new() -> Self {
        Self::with(Disk::Shared)
    }

    fn with(disk: Disk) -> Self {
        let dir = tempfile::Builder::new().prefix("slurm").tempdir().unwrap();
        let mut cluster = Self { dir, daemons: Vec::new() };
        for name in ["state", "bin", "runs", "tmp"] {
            std::fs::create_dir(cluster.path(name)).unwrap();
        }
        for name in ["gpu0", "gpu1"] {
            std::fs::write(cluster.path(name), "").unwrap();
        }
        std::fs::write(cluster.path("munge.key"), [7; 128]).unwrap();
        run(Command::new("chmod").arg("600").arg(cluster.path("munge.key")));
        cluster.write_config();
        cluster.start_munge();
        cluster.start_controller();
        for node in ["n1", "n2"] {
            cluster.start_node(node, disk);
        }
        let idle = || cluster.ask("sinfo", &["-h", "-o", "%T %D"]).stdout.trim() == "idle 2";
        wait_for("two idle nodes", idle);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_config(&self) {
        let dir = self.dir.path().display();
        let host = Said::from(Command::new("hostname").output().unwrap()).stdout;
        let (host, port) = (host.trim(), free_port());
        let config = format!(
            "ClusterName=lab\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={port}\nSlurmUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={dir}/munge.socket\nCredType=cred/munge\n\
             StateSaveLocation={dir}/state\nSlurmdSpoolDir={dir}/spool-%n\n\
             SlurmctldPidFile={dir}/slurmctld.pid\nSlurmdPidFile={dir}/slurmd-%n.pid\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\n\
             MpiDefault=none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             GresTypes=gpu\nReturnToService=2\nSlurmdParameters=config_overrides\nKillWait=3\n\
             NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.2 Port={} CPUs=2 RealMemory=500 Gres=gpu:2\n\
             NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.3 Port={} CPUs=2 RealMemory=500 Gres=gpu:2\n\
             PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            port + 1,
            port + 2
        );
        std::fs::write(self.path("slurm.conf"), config).unwrap();
        let gres = format!("NodeName=n[1-2] Name=gpu File={dir}/gpu[0-1]\n");
        std::fs::write(self.path("gres.conf"), gres).unwrap();
    }

    fn start_munge(&mut self) {
        let path = |name: &str| self.path(name).display().to_string();
        let mut command = Command::new("/usr/sbin/munged");
        command.args(["--foreground", "--force"]);
        for (flag, name) in [
            ("--key-file", "munge.key"),
            ("--socket", "munge.socket"),
            ("--pid-file", "munge.pid"),
            ("--log-file", "munge.log"),
            ("--seed-file", "munge.seed"),
        ] {
            command.arg(format!("{flag}={}", path(name)));
        }
        self.spawn(command, "munged");
        let socket = self.path("munge.socket");
        wait_for("munged", || socket.exists());
    }

    fn start_controller(&mut self) {
        let mut command = Command::new("/usr/sbin/slurmctld");
        command.arg("-D").env("SLURM_CONF", self.path("slurm.conf"));
        self.spawn(command, "slurmctld");
    }

    fn start_node(&mut self, node: &str, disk: Disk) {
        let slurmd = format!("exec /usr/sbin/slurmd -D -N {node}");
        let hidden = match disk {
            Disk::Apart => Some(self.runs()),
            Disk::Bare if node == "n2" => Some(self.path("bin")),
            Disk::Shared | Disk::Bare => None,
        };
        // What it mounts over a folder is seen by it and its jobs alone.
        let mut command = Command::new(if hidden.is_some() { "unshare" } else { "sh" });
        if hidden.is_some() {
            command.args(["--mount", "sh"]);
        }
        let hide = hidden.map(|dir| format!("mount -t tmpfs none {}; ", dir.display()));
        let hide = hide.unwrap_or_default();
        command.args(["-ec", &format!("{hide}{slurmd}")]);
        command.env("SLURM_CONF", self.path("slurm.conf"));
        self.spawn(command, node);
    }

    /// Ends the controller, as its site does for a new configuration.
    fn stop_controller(&mut self) {
        // munged was the first.
        let mut controller = self.daemons.remove(1);
        signal(controller.id(), "TERM");
        controller.wait().unwrap();
    }

    fn spawn(&mut self, mut command: Command, name: &str) {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push(command.spawn().unwrap());
    }

    /// A program of Slurm. Never without a limit: a node that is down has jobs wait for ever.
    fn ask(&self, program: &str, args: &[&str]) -> Said {
        let mut command = Command::new("timeout");
        command.arg("60").arg(program).args(args).env("SLURM_CONF", self.path("slurm.conf"));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Jobs that have not left the queue, as `ID STATE`.
    fn jobs(&self) -> Vec<String> {
        let said = self.ask("squeue", &["-h", "-o", "%A %T"]).stdout;
        said.lines().map(str::to_owned).collect()
    }

    fn runs(&self) -> PathBuf {
        self.path("runs")
    }

    fn scalebeam(&self) -> Command {
        let mut command = scalebeam();
        let exe = PathBuf::from(command.get_program());
        let search = std::env::var("PATH").unwrap();
        let path =
            format!("{}:{}:{search}", self.path("bin").display(), exe.parent().unwrap().display());
        command.env("SLURM_CONF", self.path("slurm.conf")).env("PATH", path);
        // Said to real engines around the tests: stand-ins have no model that would have to be there.
        command.env("TMPDIR", self.path("tmp")).env_remove("HF_HUB_OFFLINE");
        command
    }

    fn say(&self, args: &[&str]) -> Said {
        self.scalebeam().args(args).output().unwrap().into()
    }

    /// Writes an experiment of this one deployment.
    fn experiment(&self, deploy: &str, load: &str) -> String {
        let text = format!(
            "schema = 1\nname = \"jobs\"\n[model]\nid = \"Qwen/Qwen2.5-7B-Instruct\"\n\
             [host.n1]\ngpus = 8\ngpu = \"H100-SXM-80G\"\n[host.n2]\ngpus = 8\ngpu = \"H100-SXM-80G\"\n\
             [[deploy]]\nname = \"pair\"\nplatform = \"slurm\"\nport = {}\n{deploy}\n\
             stop = {{ grace = \"5s\" }}\nready = {{ timeout = \"60s\" }}\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\n{load}\n",
            free_port()
        );
        let file = self.path("jobs.toml");
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// Emulated replicas, one on each node.
    fn pair(&self, params: &str, load: &str) -> String {
        let deploy = format!(
            "engine = \"emulated\"\nreplicas = 2\nplace = [\"n1:0\", \"n2:0\"]\nparams = {{ {params} }}"
        );
        self.experiment(&deploy, load)
    }

    fn run(&self, file: &str, more: &[&str]) -> Said {
        let runs = self.runs().display().to_string();
        let mut args = vec!["run", file, "--out", &runs, "--selftest", "never"];
        args.extend(more);
        self.say(&args)
    }

    fn down(&self) -> Said {
        self.say(&["down", "--out", &self.runs().display().to_string()])
    }

    fn start_run(&self, file: &str) -> Live {
        self.start_run_of(file, &[])
    }

    fn start_run_of(&self, file: &str, more: &[&str]) -> Live {
        let mut command = self.scalebeam();
        command.args(["run", file, "--selftest", "never", "--out"]).arg(self.runs()).args(more);
        let log = self.path("run.log");
        let stderr = std::fs::File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Live { child, log }
    }

    fn run_dir(&self) -> PathBuf {
        let mut dirs = std::fs::read_dir(self.runs()).unwrap().flatten().map(|e| e.path());
        dirs.find(|d| d.join("journal.jsonl").exists()).unwrap()
    }

    fn journal(&self) -> String {
        std::fs::read_to_string(self.run_dir().join("journal.jsonl")).unwrap()
    }

    /// Processes of `deployment` by the order in which the job script saw them end.
    fn ended(&self, deployment: &str) -> Vec<String> {
        let log = self.run_dir().join(format!("logs/{deployment}/job-1.out"));
        let log = std::fs::read_to_string(log).unwrap();
        let of = |line: &str| {
            Some(line.strip_prefix("process ")?.split_once(" ended with ")?.0.to_owned())
        };
        log.lines().filter_map(of).collect()
    }

    /// A program of the site, on every node.
    fn install(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, script).unwrap();
        run(Command::new("chmod").arg("755").arg(&path));
    }

    #[track_caller]
    fn nothing_runs(&self) {
        assert_eq!(self.jobs(), Vec::<String>::new());
        assert_eq!(marked_processes(&self.runs()), []);
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        self.nothing_runs();
        let written = std::fs::read_dir(self.path("tmp")).unwrap().flatten();
        let written: Vec<PathBuf> = written.map(|e| e.path()).filter(|p| !is_empty(p)).collect();
        assert!(written.is_empty(), "{written:?}");
        assert_eq!(self.scratch(), Vec::<PathBuf>::new(), "what they wrote goes with them");
    }

    /// What the jobs of all runs are called.
    fn job_names(&self) -> Vec<String> {
        let journals = std::fs::read_dir(self.runs()).unwrap().flatten();
        let journals =
            journals.filter_map(|e| std::fs::read_to_string(e.path().join("journal.jsonl")).ok());
        let name = |line: &str| {
            let intent: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(intent["name"].as_str()?.to_owned())
        };
        let names = |journal: String| {
            let intents = journal.lines().filter(|l| l.contains("platform_intent"));
            intents.filter_map(name).collect::<Vec<_>>()
        };
        journals.flat_map(names).collect()
    }

    /// Folders with logs of the job outside of the run directory.
    fn logs_on_nodes(&self) -> Vec<PathBuf> {
        self.job_names().iter().flat_map(|name| of_temporary(name)).collect()
    }

    /// Folders of the nodes in which its processes write.
    fn scratch(&self) -> Vec<PathBuf> {
        let names = self.job_names();
        let hashes = names.iter().filter_map(|name| Some(name.rsplit_once('-')?.1));
        hashes.flat_map(|hash| of_temporary(&format!("sb-{hash}-"))).collect()
    }

    /// Kills a process of the run whose command `is_it`.
    #[track_caller]
    fn kill(&self, is_it: impl Fn(&str) -> bool) {
        let all = marked_processes(&self.runs());
        let found = all.iter().find(|(_, command)| is_it(command));
        let (pid, _) = found.unwrap_or_else(|| panic!("{all:#?}"));
        signal(u32::try_from(*pid).unwrap(), "KILL");
    }

    fn engines(&self) -> Vec<u32> {
        let exe = format!("{} serve ", env!("CARGO_BIN_EXE_scalebeam"));
        let all = marked_processes(&self.runs());
        let engines = all.into_iter().filter(|(_, command)| command.starts_with(&exe));
        engines.map(|(pid, _)| u32::try_from(pid).unwrap()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.ask("scancel", &["--user=root"]);
        for _ in 0..100 {
            if self.jobs().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        // The last started first: a node tells the controller that it goes.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            for _ in 0..50 {
                if !matches!(daemon.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// What of the place for temporary files begins with `name`.
fn of_temporary(name: &str) -> Vec<PathBuf> {
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(name);
    std::fs::read_dir("/tmp").unwrap().flatten().map(|e| e.path()).filter(is_it).collect()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// A run that goes on.
struct Live {
    child: Child,
    log: PathBuf,
}

impl Live {
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// How it ends, and what it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.said())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn logs(run_dir: &Path) -> Vec<String> {
    let dir = std::fs::read_dir(run_dir.join("logs/pair")).unwrap().flatten();
    let mut names: Vec<String> =
        dir.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_two_nodes_are_weighed_and_nothing_is_left() {
    let cluster = Cluster::new();
    let said = cluster.run(&cluster.pair(FAST, LOAD), &["--json"]).expect_code(0);
    let results = said.json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 80, "{results:#}");
    let shares = point["by_target"].as_array().unwrap();
    assert!(shares.len() == 2 && shares.iter().all(|n| n.as_u64().unwrap() > 20), "{shares:?}");
    cluster.nothing_is_left();
    let dir = cluster.run_dir();
    assert_eq!(logs(&dir), ["0-serve-1.log", "1-serve-1.log", "job-1.out"]);
    for log in ["0-serve-1.log", "1-serve-1.log"] {
        let text = std::fs::read_to_string(dir.join("logs/pair").join(log)).unwrap();
        assert!(text.contains("listening"), "{log}: {text}");
    }
    let journal = cluster.journal();
    for event in ["platform_intent", "platform_accepted", "platform_gone"] {
        assert_eq!(journal.matches(event).count(), 1, "{event}: {journal}");
    }
    let accounted = cluster.ask("scontrol", &["show", "job", "1"]).stdout;
    assert!(accounted.contains("Requeue=0"), "{accounted}");
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_chooses_a_node_where_nothing_is_placed() {
    let cluster = Cluster::new();
    let deploy = format!("engine = \"emulated\"\nparams = {{ {FAST} }}\ngpu = \"H100-SXM-80G\"");
    let said = cluster.run(&cluster.experiment(&deploy, LOAD), &["--json"]).expect_code(0);
    let results = said.json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 80);
    let absent = results["points"][0]["trials"][0]["usage"]["absent"].as_array().unwrap();
    let nodes = absent.iter().find(|a| a["host"] == "nodes of the job").unwrap();
    assert!(nodes["why"].as_str().unwrap().contains("name nodes by `place`"), "{nodes}");
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_after_kill_9_down_ends_the_job() {
    let cluster = Cluster::new();
    let file = cluster.pair(SLOW, LONG);
    let mut live = cluster.start_run(&file);
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    signal(live.child.id(), "KILL");
    live.child.wait().unwrap();
    // Another run does not start over it, and names it.
    let said = cluster.run(&file, &[]).expect_code(4);
    assert!(said.stderr.contains("job 1 (RUNNING) of pair on slurm"), "{}", said.stderr);
    assert!(said.stderr.contains("scalebeam down"), "{}", said.stderr);
    let dir = cluster.run_dir().display().to_string();
    let said = cluster.say(&["down", &dir]).expect_code(0);
    assert!(said.stdout.contains("job 1 of pair on slurm: terminated"), "{}", said.stdout);
    cluster.nothing_is_left();
    let said = cluster.say(&["down", &dir]).expect_code(0);
    assert!(said.stdout.contains("nothing left running"), "{}", said.stdout);
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_job_that_was_taken_but_not_recorded_is_found_by_its_name() {
    let cluster = Cluster::new();
    // Killed after the cluster has the job, and before scalebeam has heard its number.
    let script = "#!/bin/sh\nsaid=$(/usr/bin/sbatch \"$@\"); kill -9 $PPID; echo \"$said\"\n";
    let sbatch = cluster.path("bin/sbatch");
    std::fs::write(&sbatch, script).unwrap();
    run(Command::new("chmod").arg("755").arg(&sbatch));
    assert_eq!(cluster.run(&cluster.pair(FAST, LOAD), &[]).code, None);
    assert_eq!(cluster.jobs().len(), 1);
    assert!(!cluster.journal().contains("platform_accepted"));
    // Somebody else's job is nobody's business.
    let other = cluster.ask("sbatch", &["--parsable", "--job-name=pair", "--wrap", "sleep 600"]);
    let other = other.expect_code(0).stdout.trim().to_owned();
    let said = cluster.down().expect_code(0);
    assert!(said.stdout.contains("job 1 of pair on slurm: terminated"), "{}", said.stdout);
    let left = cluster.jobs();
    assert!(left.len() == 1 && left[0].starts_with(&other), "{left:?}");
    assert_eq!(marked_processes(&cluster.runs()), []);
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_job_that_somebody_cancels_ends_the_run() {
    let cluster = Cluster::new();
    let mut live = cluster.start_run(&cluster.pair(SLOW, LONG));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    cluster.ask("scancel", &["1"]).expect_code(0);
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("job 1 was cancelled, and not by scalebeam"), "{said}");
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_process_that_dies_is_named_and_ends_the_run() {
    let cluster = Cluster::new();
    let mut live = cluster.start_run(&cluster.pair(SLOW, LONG));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    let engines = cluster.engines();
    assert_eq!(engines.len(), 2, "{:?}", marked_processes(&cluster.runs()));
    signal(engines[1], "KILL");
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("/serve ended with signal 9 (SIGKILL)"), "{said}");
    assert!(said.contains("listening on"), "the log's end: {said}");
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_process_that_cannot_start_is_named_with_its_last_line() {
    let cluster = Cluster::new();
    let deploy = "engine = \"emulated\"\nplace = [\"n2:0\"]\nargs = [\"--no-such-flag\"]";
    let said = cluster.run(&cluster.experiment(deploy, LOAD), &[]).expect_code(4);
    assert!(said.stderr.contains("process pair/0/serve ended with status 2"), "{}", said.stderr);
    assert!(said.stderr.contains("--no-such-flag"), "{}", said.stderr);
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_job_that_is_refused_is_an_error_at_once() {
    let cluster = Cluster::new();
    let params = format!("partition = \"nowhere\", {FAST}");
    let said = cluster.run(&cluster.pair(&params, LOAD), &[]).expect_code(4);
    let stderr = &said.stderr;
    assert!(stderr.contains("deployment 'pair' on slurm: sbatch: "), "{stderr}");
    assert!(stderr.contains("invalid partition specified: nowhere"), "{stderr}");
    assert!(stderr.contains("hint: correct `partition` in params"), "{stderr}");
    cluster.nothing_is_left();
    assert!(cluster.journal().contains("platform_gone"), "looked for by its name");
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_logs_are_brought_from_nodes_that_do_not_see_the_run_directory() {
    let cluster = Cluster::with(Disk::Apart);
    cluster.run(&cluster.pair(FAST, LOAD), &[]).expect_code(0);
    cluster.nothing_is_left();
    let dir = cluster.run_dir();
    assert_eq!(logs(&dir), ["0-serve-1.log", "1-serve-1.log", "job-1.out"]);
    let text = std::fs::read_to_string(dir.join("logs/pair/1-serve-1.log")).unwrap();
    assert!(text.contains("listening"), "{text}");
    assert_eq!(cluster.logs_on_nodes(), Vec::<PathBuf>::new());
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_death_is_told_without_a_shared_disk() {
    let cluster = Cluster::with(Disk::Apart);
    let mut live = cluster.start_run(&cluster.pair(SLOW, LONG));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    assert_eq!(cluster.logs_on_nodes().len(), 1, "the job keeps its logs on its first node");
    signal(cluster.engines()[0], "KILL");
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(
        said.contains("/serve ended with signal 9 (SIGKILL); last log line: listening"),
        "{said}"
    );
    cluster.nothing_is_left();
    assert_eq!(cluster.logs_on_nodes(), Vec::<PathBuf>::new());
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_controller_that_restarts_costs_nothing() {
    let mut cluster = Cluster::new();
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 200\nwarmup = 4\n";
    let mut live = cluster.start_run(&cluster.pair(SLOW, load));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    cluster.stop_controller();
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.start_controller();
    let (code, said) = live.end();
    assert!(matches!(code, Some(0 | 3)), "{code:?} {said}");
    assert!(said.contains("pair: taken down"), "{said}");
    cluster.nothing_is_left();
}

/// What goes wrong in one life of a run.
#[derive(Debug, Clone, Copy)]
enum Fault {
    ScalebeamKilled,
    EngineKilled,
    JobCancelled,
    Interrupted,
}

const FAULTS: [Fault; 4] =
    [Fault::ScalebeamKilled, Fault::EngineKilled, Fault::JobCancelled, Fault::Interrupted];

fn strike(fault: Fault, live: &Live, cluster: &Cluster) {
    match fault {
        Fault::ScalebeamKilled => signal(live.child.id(), "KILL"),
        Fault::Interrupted => signal(live.child.id(), "INT"),
        Fault::JobCancelled => {
            cluster.ask("scancel", &["--quiet", "--user=root"]);
        }
        Fault::EngineKilled => {
            if let Some(pid) = cluster.engines().last() {
                signal(*pid, "KILL");
            }
        }
    }
}

/// One life with one fault after `delay_ms`; afterwards nothing is left, and whoever failed said why.
fn live_through(cluster: &Cluster, fault: Fault, delay_ms: u64) {
    let load = "mode = \"closed\"\nconcurrency = 4\nrequests = 200\nwarmup = 4\ntimeout = \"5s\"\n";
    let mut live = cluster.start_run(&cluster.pair("ttft = \"20ms\", itl = \"4ms\"", load));
    std::thread::sleep(std::time::Duration::from_millis(delay_ms));
    strike(fault, &live, cluster);
    let (code, said) = live.end();
    // 0 and 3: it was over already, or bore it.
    let wanted: &[Option<i32>] = match fault {
        Fault::ScalebeamKilled => &[None, Some(0), Some(3)],
        Fault::Interrupted => &[Some(130), Some(0), Some(3)],
        _ => &[Some(0), Some(3), Some(4)],
    };
    assert!(wanted.contains(&code), "{fault:?} after {delay_ms} ms: {code:?}\n{said}");
    if code == Some(4) {
        assert!(said.contains("hint:") && said.contains("job "), "{fault:?}: {said}");
    }
    let down = cluster.down();
    assert_eq!(down.code, Some(0), "{fault:?} after {delay_ms} ms: {down:?}\n{said}");
    cluster.nothing_is_left();
    std::fs::remove_dir_all(cluster.runs()).unwrap();
    std::fs::create_dir(cluster.runs()).unwrap();
}

/// `SCALEBEAM_FAULTS` lives, four by default, each with a fault at a moment of its own.
#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_faults_at_any_moment_leave_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let (lives, from) = (number("SCALEBEAM_FAULTS"), number("SCALEBEAM_FAULTS_FROM"));
    let (lives, from) = (lives.unwrap_or(4), from.unwrap_or(0));
    let cluster = Cluster::new();
    for life in from..from + lives {
        let fault = FAULTS[usize::try_from(life).unwrap() % FAULTS.len()];
        // Spread over the 8 s of a life, without a pattern that the faults share.
        live_through(&cluster, fault, life.wrapping_mul(2_654_435_761) % 8_000);
    }
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_gpus_that_no_node_has_are_refused_at_once() {
    let cluster = Cluster::new();
    let deploy = "engine = \"vllm\"\ntp = 4\nplace = [\"n1:0-3\"]";
    let said = cluster.run(&cluster.experiment(deploy, LOAD), &[]).expect_code(4);
    let stderr = &said.stderr;
    assert!(stderr.contains("Requested node configuration is not available"), "{stderr}");
    assert!(stderr.contains("hint: no node has what the job asks for"), "{stderr}");
    cluster.nothing_is_left();
}

impl Cluster {
    /// SGLang over both nodes. It needs GPUs, so what is started is a stand-in that takes its flags and joins ranks.
    fn sglang(&self, load: &str) -> String {
        let stand_in = root().join("tests-support/stand_in_sglang");
        let deploy = format!(
            "engine = \"sglang\"\nlauncher = \"mp\"\ntp = 4\nplace = [\"n1:0-1 + n2:0-1\"]\n\
             env = {{ PYTHONPATH = \"{}\", PYTHONDONTWRITEBYTECODE = \"1\" }}",
            stand_in.display()
        );
        let file = self.experiment(&deploy, load);
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text
            .replace("[host.n1]", "[host.n1]\naddr = \"127.0.0.2\"")
            .replace("[host.n2]", "[host.n2]\naddr = \"127.0.0.3\"");
        std::fs::write(&file, text).unwrap();
        file
    }
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_ranks_of_sglang_join_over_two_nodes() {
    let cluster = Cluster::new();
    let said = cluster.run(&cluster.sglang(LOAD), &["--json"]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 80, "{said:?}");
    cluster.nothing_is_left();
    let dir = cluster.run_dir();
    assert_eq!(logs(&dir), ["0-rank1-1.log", "0-serve-1.log", "job-1.out"]);
    let text = std::fs::read_to_string(dir.join("logs/pair/0-serve-1.log")).unwrap();
    assert!(text.contains("rank 1 joined"), "{text}");
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_rank_of_sglang_that_dies_ends_the_run() {
    let cluster = Cluster::new();
    let mut live = cluster.start_run(&cluster.sglang(LONG));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    cluster.kill(|command| !command.starts_with("srun ") && command.contains("--node-rank 1"));
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("process pair/0/") && said.contains(" ended with "), "{said}");
    cluster.nothing_is_left();
}

/// Seed 1's shape with a real vLLM: TP2 over two nodes by `--nnodes`.
#[test]
#[ignore = "needs a real vLLM, root and Slurm; ci/test --all runs it"]
fn vllm_as_a_job_over_two_nodes() {
    weigh_vllm("tp2-mp");
}

/// A pipeline over two nodes that Ray joins: the second raylet waits for the head, the server for both. What raylets
/// started ends with the job.
#[test]
#[ignore = "needs a real vLLM, root and Slurm; ci/test --all runs it"]
fn vllm_as_a_job_over_two_nodes_that_ray_joins() {
    weigh_vllm("pp2-ray");
}

/// Two replicas that Ray Serve places on a Ray cluster of two nodes: counted by `serve status` in a step of the job, and
/// reached at the proxy beside the head.
#[test]
#[ignore = "needs a real vLLM with Ray Serve, root and Slurm; ci/test --all runs it"]
fn vllm_in_ray_serve_as_a_job_over_two_nodes() {
    let cluster = Cluster::new();
    let said = weigh_real(&cluster, &ray_serve(), "two").stderr;
    assert!(said.contains("application llms of Ray Serve: 0 of 2 replicas"), "{said}");
}

/// A prefill replica on one node and one that decodes on the other, where bytes are counted that moved. The application
/// and the other raylet go after the head, which has the proxy.
#[test]
#[ignore = "needs a real vLLM with Ray Serve and NIXL, root and Slurm; ci/test --all runs it"]
fn vllm_split_in_ray_serve_as_a_job_over_two_nodes() {
    let cluster = Cluster::new();
    let said = weigh_real(&cluster, &ray_serve(), "split");
    assert!(said.stderr.contains("1 replicas of Prefill:instances run"), "{said:?}");
    let results = said.json();
    let engines = results["points"][0]["trials"][0]["engines"].as_array().unwrap();
    let received = |node: &str| {
        let engine = engines.iter().find(|e| e["name"] == node);
        engine.and_then(|e| e["values"]["kv_received_bytes"]["counter"]["risen"].as_f64())
    };
    assert!(received("node n2") > Some(0.0), "{engines:#?}");
    assert_eq!(received("node n1"), None, "{engines:#?}");
    let journal = cluster.journal();
    assert!(!journal.contains("key-value blocks"), "the gate remarked something: {journal}");
    let ended = cluster.ended("split");
    assert_eq!((ended.len(), ended[0].as_str()), (3, "split/infra/ray0"), "{ended:?}");
}

/// `experiments/real-ray-serve.toml` on nodes of Slurm.
fn ray_serve() -> String {
    let text = with_nixl("real-ray-serve.toml");
    let serve = Path::new(&setting("SCALEBEAM_E2E_VLLM")).with_file_name("serve");
    text.replace("/path/to/serve", &serve.display().to_string())
        .replace("platform = \"local\"", "platform = \"slurm\"")
        .replace("[host.a]", "[host.n1]")
        .replace("[host.b]", "[host.n2]")
        .replace("\"a:0\"", "\"n1:0\"")
        .replace("\"b:0\"", "\"n2:0\"")
}

fn weigh_vllm(deployment: &str) {
    let text = std::fs::read_to_string(root().join("experiments/real-vllm-slurm.toml")).unwrap();
    let text = text.replace("/path/to/vllm", &setting("SCALEBEAM_E2E_VLLM"));
    weigh_real(&Cluster::new(), &text, deployment);
}

/// Weighs `deployment` of the experiment `text`; what was said.
fn weigh_real(cluster: &Cluster, text: &str, deployment: &str) -> Said {
    let text = text.replacen("/path/to/smollm2", &setting("SCALEBEAM_E2E_VLLM_MODEL"), 1);
    let file = cluster.path("real.toml");
    std::fs::write(&file, text).unwrap();
    let more = ["--json", "--deploy", deployment];
    let said = cluster.run(&file.display().to_string(), &more);
    // Engines and the client on two cores: whether such a point is to be trusted is not asked here.
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    let results = said.json();
    let points = results["points"].as_array().unwrap();
    assert_eq!(points.len(), 1, "{results:#}");
    assert_eq!(points[0]["metrics"]["success_rate"], 1.0, "{results:#}");
    cluster.nothing_is_left();
    said
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_up_leaves_the_job_and_down_ends_it() {
    let cluster = Cluster::new();
    let (file, runs) = (cluster.pair(FAST, LOAD), cluster.runs().display().to_string());
    let said = cluster.say(&["up", &file, "--deploy", "pair", "--out", &runs]).expect_code(0);
    for addr in ["http://127.0.0.2:", "http://127.0.0.3:"] {
        assert!(said.stdout.contains(addr), "Slurm's address of each node: {}", said.stdout);
    }
    assert_eq!(cluster.jobs(), ["1 RUNNING"]);
    cluster.down().expect_code(0);
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_job_that_waits_longer_than_it_may_is_taken_back() {
    let cluster = Cluster::new();
    let wrap = ["--parsable", "--exclusive", "--nodes=2", "--wrap", "sleep 600"];
    let other = cluster.ask("sbatch", &wrap).expect_code(0).stdout.trim().to_owned();
    wait_for("the other job", || cluster.jobs() == [format!("{other} RUNNING")]);
    let said = cluster.run(&cluster.pair(&format!("queue = \"3s\", {FAST}"), LOAD), &[]);
    let stderr = &said.expect_code(4).stderr;
    assert!(stderr.contains("it did not begin within 3.00 s: pending (Resources)"), "{stderr}");
    assert!(stderr.contains("hint: raise `queue` in params"), "{stderr}");
    assert_eq!(cluster.jobs(), [format!("{other} RUNNING")]);
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_pending_job_says_why_and_an_interrupt_takes_it_back() {
    let cluster = Cluster::new();
    let wrap = ["--parsable", "--exclusive", "--nodes=2", "--wrap", "sleep 600"];
    let other = cluster.ask("sbatch", &wrap).expect_code(0).stdout.trim().to_owned();
    wait_for("the other job", || cluster.jobs() == [format!("{other} RUNNING")]);
    let mut live = cluster.start_run(&cluster.pair(FAST, LOAD));
    wait_for("the reason", || live.said().contains("pair: pending (Resources)"));
    signal(live.child.id(), "INT");
    let (code, said) = live.end();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(cluster.jobs(), [format!("{other} RUNNING")]);
    assert!(cluster.journal().contains("platform_gone"));
}

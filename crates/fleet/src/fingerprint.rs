//! What really ran, asked of a deployment that is up: its hosts, processes, entries and logs.
//!
//! **Invariants.** Read-only, as the doctor is, and by its script. It never fails: what could not be had is
//! absent with the reason. Of environments only names leave a host, and values of flags that may be
//! secrets are masked before anybody sees them.

mod engine_log;

use crate::doctor::facts::{Facts, Link};
use crate::doctor::machine::{Machine, machines};
use crate::doctor::probe::{model_call, on_path, programs, whole};
use crate::doctor::sections::{Known, Sections, Unknown};
use crate::error::in_words;
use crate::host::{Question, Ran, Shell, ShellError, ask_all, quote};
use crate::http::{Answer, Client, NoAnswer};
use crate::launch::{Running, RunningProcess, manner};
use scalebeam_model::fingerprint::{
    DeploymentPrint, EntryPrint, Fact, GpuPrint, HostPrint, LinkPrint, LogValue, ProcessPrint,
};
use scalebeam_model::plan::{DeploymentPlan, EngineKind, Plan};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Functions beside those of the probe.
const PRINT: &str = include_str!("fingerprint/print.sh");
/// A host that takes longer has a driver that hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// An entry that takes longer has no page with a version.
const VERSION_WITHIN: Duration = Duration::from_secs(5);
/// Of the beginning of a log: what an engine says while it comes up is far below.
const LOG_BYTES: u64 = 8 << 20;

/// What `running`, which is `deployment` of `plan`, really is. Relative paths start at `base`; `session` is
/// that of the run.
pub async fn fingerprint(
    plan: &Plan,
    deployment: &DeploymentPlan,
    running: &Running,
    base: &Path,
    session: u32,
) -> DeploymentPrint {
    let processes = running.processes();
    let all = machines(plan, &[deployment]);
    let at_work: Vec<Machine<'_>> = all.into_iter().filter(|m| !m.duties.is_empty()).collect();
    let question = |machine: &Machine<'_>| Question {
        shell: machine.shell.clone(),
        script: script(plan, machine, &processes),
        limit: LIMIT,
    };
    let asking = ask_all(at_work.iter().map(question).collect());
    let (answers, entries) = tokio::join!(asking, entries(deployment, base));
    let told: Vec<Told<'_>> =
        at_work.into_iter().zip(answers).map(|(machine, ran)| Told::new(machine, ran)).collect();
    DeploymentPrint {
        deployment: deployment.name.clone(),
        session,
        hosts: told.iter().map(Told::host).collect(),
        processes: processes.iter().map(|p| process(deployment.engine, p, &told)).collect(),
        entries,
    }
}

/// The functions, and the calls of those whose facts are wanted of this machine. What the probe asks
/// besides (ports, peers) is not: it would knock at ranks that are at work.
fn script(plan: &Plan, machine: &Machine<'_>, processes: &[RunningProcess]) -> String {
    let mut calls = String::from(
        "kernel\ndrivers\nlinks\ninfiniband\nask addresses 3 ip -o addr show\n\
         show memory /proc/meminfo\nask cpus 3 getconf _NPROCESSORS_ONLN\n",
    );
    // Writing to a String cannot fail.
    for (program, path) in programs(machine) {
        let _ = writeln!(calls, "({}versions {})", on_path(path), quote(program));
    }
    if machine.on_gpus().is_ok() {
        calls.push_str("gpu_tables\ncuda\n");
    }
    if machine.loading().is_ok() {
        calls.push_str(&model_call("model_files", plan, machine));
    }
    for process in processes.iter().filter(|p| runs(machine, &p.id)) {
        let pid = match machine.shell {
            Shell::Here => process.pid.to_string(),
            Shell::Ssh(_) | Shell::Step(_) | Shell::Pod(_) => {
                format!("\"$(child {})\"", process.pid)
            }
        };
        let _ = writeln!(calls, "process {} {pid}", quote(&process.id));
    }
    whole(PRINT, &calls)
}

fn runs(machine: &Machine<'_>, process: &str) -> bool {
    machine.any(|duty| duty.process.id == process)
}

/// What a machine said, or why it did not.
struct Told<'a> {
    machine: Machine<'a>,
    cut: Sections,
    facts: Facts,
    /// Why it could not be asked.
    unreached: Option<String>,
}

impl<'a> Told<'a> {
    fn new(machine: Machine<'a>, ran: Result<Ran, ShellError>) -> Self {
        let (text, unreached) = match ran {
            Ok(ran) => (ran.stdout, None),
            Err(error) => (String::new(), Some(in_words(&error))),
        };
        Self { machine, cut: Sections::cut(&text), facts: Facts::read(&text), unreached }
    }

    fn fact<T>(&self, known: Known<T>) -> Fact<T> {
        match (known, &self.unreached) {
            (Ok(value), _) => Fact::Known(value),
            (Err(_), Some(why)) => Fact::absent(why),
            (Err(Unknown(why)), None) => Fact::absent(why),
        }
    }

    /// The one line of a section.
    fn line(&self, section: &str) -> Known<String> {
        let text = self.cut.get(section)?.trim();
        if text.is_empty() {
            return Err(Unknown::because(format!("the host's '{section}' is empty")));
        }
        Ok(text.to_owned())
    }

    fn host(&self) -> HostPrint {
        let after_colon = |text: String| {
            text.split_once(':').map_or_else(|| text.clone(), |(_, name)| name.trim().to_owned())
        };
        HostPrint {
            host: self.machine.label.clone(),
            kernel: self.fact(self.line("kernel")),
            system: self.fact(self.line("system")),
            cpu: self.fact(self.line("cpu").map(after_colon)),
            cpus: self.fact(self.facts.cpus.clone()),
            memory_bytes: self.fact(self.cut.get("memory").and_then(memory_bytes)),
            cuda: self.fact(self.on_gpus().and_then(|()| cuda(self.cut.get("cuda")?))),
            gpus: self.fact(self.on_gpus().and_then(|()| self.gpus())),
            links: self.fact(self.links()),
            infiniband: self.fact(self.infiniband()),
            packages: self.packages(),
            model_hashes: self
                .fact(self.machine.loading().and_then(|_| self.facts.model.hashes.clone())),
        }
    }

    /// Why GPUs are not asked for, where no process computes on any.
    fn on_gpus(&self) -> Known<()> {
        self.machine.on_gpus().map(drop)
    }

    fn gpus(&self) -> Known<Vec<GpuPrint>> {
        let print = |gpu: &crate::doctor::nvidia::Gpu| GpuPrint {
            index: gpu.index,
            name: gpu.name.clone(),
            uuid: gpu.uuid.clone(),
            driver: gpu.driver.clone(),
            memory_total_mib: gpu.memory_total_mib,
            power_limit_w: gpu.power_limit_w,
        };
        self.facts.gpus.as_ref().map(|all| all.iter().map(print).collect()).map_err(Clone::clone)
    }

    fn links(&self) -> Known<BTreeMap<String, LinkPrint>> {
        let drivers = drivers(self.cut.get("drivers")?);
        let links = self.facts.links.as_ref().map_err(Clone::clone)?;
        let is_wanted = |name: &str| drivers.contains_key(name) || self.is_data_plane(name);
        let print = |(name, link): (&String, &Link)| {
            let driver = drivers.get(name.as_str()).map(|d| (*d).to_owned());
            let (state, mtu_bytes) = (link.state.clone(), link.mtu);
            (name.clone(), LinkPrint { driver, state, mtu_bytes, speed_mbps: link.speed_mbps })
        };
        Ok(links.iter().filter(|(name, _)| is_wanted(name)).map(print).collect())
    }

    /// Whether the file names the interface, or its address.
    fn is_data_plane(&self, name: &str) -> bool {
        let carries = |addr: IpAddr| {
            let addresses = self.facts.addresses.as_deref().unwrap_or_default();
            addresses.iter().any(|a| a.addr == addr && a.iface == name)
        };
        self.machine
            .hosts
            .iter()
            .any(|host| host.iface.as_deref() == Some(name) || host.addr.parse().is_ok_and(carries))
    }

    fn infiniband(&self) -> Known<BTreeMap<String, String>> {
        let ports = self.facts.infiniband.as_ref().map_err(Clone::clone)?;
        let words =
            |p: &crate::doctor::facts::IbPort| (p.name.clone(), format!("{}, {}", p.state, p.rate));
        Ok(ports.iter().map(words).collect())
    }

    fn packages(&self) -> BTreeMap<String, Fact<BTreeMap<String, String>>> {
        let of = |program: &str| {
            let never = || Err(Unknown::because("not a Python program that is on PATH"));
            let found = self.facts.versions.get(program).cloned();
            (program.to_owned(), self.fact(found.unwrap_or_else(never)))
        };
        programs(&self.machine).into_keys().map(of).collect()
    }
}

/// `MemTotal:  131072000 kB`.
fn memory_bytes(text: &str) -> Known<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    let never = || Unknown::because("/proc/meminfo has no MemTotal");
    kib.map(|kib| kib.saturating_mul(1024)).ok_or_else(never)
}

/// The head of `nvidia-smi`'s table: `Driver Version: 550.54.15   CUDA Version: 12.4`.
fn cuda(text: &str) -> Known<String> {
    let found = text.split_once("CUDA Version:").map(|(_, rest)| rest);
    let version = found.and_then(|rest| rest.split_whitespace().next());
    let is_number = |v: &&str| v.starts_with(|c: char| c.is_ascii_digit());
    let never = || Unknown::because("nvidia-smi names no CUDA version");
    version.filter(is_number).map(str::to_owned).ok_or_else(never)
}

fn drivers(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('\t')).collect()
}

fn process(engine: EngineKind, process: &RunningProcess, told: &[Told<'_>]) -> ProcessPrint {
    let machine = told.iter().find(|t| runs(&t.machine, &process.id));
    let section = |kind: &str| -> Fact<Vec<String>> {
        let Some(told) = machine else { return Fact::absent("its host is not in the plan") };
        let text = told.cut.get(&format!("{kind} {}", process.id));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let never = || Unknown::because("the process had none to tell; it may have just ended");
        let some = |all: Vec<String>| if all.is_empty() { Err(never()) } else { Ok(all) };
        told.fact(text.map(lines).and_then(some))
    };
    let command = match section("command") {
        Fact::Known(words) => Fact::Known(masked(words)),
        absent @ Fact::Absent { .. } => absent,
    };
    ProcessPrint {
        process: process.id.clone(),
        host: process.host.clone(),
        command,
        env_names: section("environment"),
        log: log_facts(engine, process),
    }
}

fn log_facts(engine: EngineKind, process: &RunningProcess) -> BTreeMap<String, Fact<LogValue>> {
    let text = head(&process.log, process.log_from);
    match text {
        Ok(text) => engine_log::read(engine, &text),
        Err(error) => {
            let why = format!("its log cannot be read: {error}");
            let absent = |(name, _)| (name, Fact::absent(&why));
            engine_log::read(engine, "").into_iter().map(absent).collect()
        }
    }
}

/// The log from byte `from` on, up to [`LOG_BYTES`].
fn head(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of a command line, each after the mark of its line, with what may be a secret masked.
fn masked(lines: Vec<String>) -> Vec<String> {
    const MASK: &str = "***";
    let mut hides_next = false;
    let mask = |line: String| {
        let word = line.strip_prefix('=').unwrap_or(&line).to_owned();
        let is_flag = word.starts_with("--");
        // A flag may take several.
        hides_next &= !is_flag;
        if hides_next {
            return MASK.to_owned();
        }
        match word.split_once('=') {
            Some((flag, _)) if is_flag && is_secret(flag) => format!("{flag}={MASK}"),
            None if is_flag && is_secret(&word) => {
                hides_next = true;
                word
            }
            _ => word,
        }
    };
    lines.into_iter().map(mask).collect()
}

/// `--api-key`, `--hf-token`; not `--max-num-batched-tokens` or `--tokenizer`.
fn is_secret(flag: &str) -> bool {
    let last = flag.rsplit(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    ["key", "keys", "token", "secret", "password"].contains(&last.as_str())
}

/// Asks every entry for its version.
async fn entries(deployment: &DeploymentPlan, base: &Path) -> Vec<EntryPrint> {
    let client = Client::new(deployment, base, manner(deployment));
    let mut out = Vec::new();
    for entry in &deployment.entries {
        let version = match (&client, version_page(deployment.engine)) {
            (Err(error), _) => Fact::absent(error.to_string()),
            (_, None) => Fact::absent("no page of it is known that tells a version"),
            (Ok(client), Some((path, key))) => {
                let url = format!("{}{path}", entry.url.trim_end_matches('/'));
                match tokio::time::timeout(VERSION_WITHIN, client.get(&url)).await {
                    Ok(answer) => version(answer, path, key),
                    Err(_) => Fact::absent(format!("{path} gave no answer in time")),
                }
            }
        };
        out.push(EntryPrint { url: entry.url.clone(), version });
    }
    out
}

/// The page that tells an engine's version, and the key of it.
const fn version_page(engine: EngineKind) -> Option<(&'static str, &'static str)> {
    match engine {
        EngineKind::Vllm | EngineKind::Emulated => Some(("/version", "version")),
        EngineKind::LlamaCpp => Some(("/props", "build_info")),
        EngineKind::Sglang => Some(("/get_server_info", "version")),
        // Of the others no such page is known.
        _ => None,
    }
}

fn version(answer: Result<Answer, NoAnswer>, path: &str, key: &str) -> Fact<String> {
    let answer = match answer {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return Fact::absent(format!("{path}: HTTP {}", answer.status)),
        Err(NoAnswer(why)) => return Fact::absent(format!("{path}: {why}")),
    };
    let parsed: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
    let text = parsed.as_ref().and_then(|v| v.get(key)?.as_str());
    let text = text.map(str::trim).filter(|t| !t.is_empty());
    text.map_or_else(
        || Fact::absent(format!("{path} has no '{key}'")),
        |text| Fact::Known(text.to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{healthy, two_nodes};

    const MORE: &str = "\
@@ kernel
Linux 6.8.0-51-generic x86_64
@@ system
Ubuntu 24.04.1 LTS
@@ cpu
model name\t: AMD EPYC 9654 96-Core Processor
@@ cuda
| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |
@@ drivers
eno1\tmlx5_core
@@ command dual/0/serve
=/opt/venv/bin/python
=vllm
=serve
=--api-key
=hush
=rush
=--hf-token=hush
=--max-num-batched-tokens=256
=
@@ environment dual/0/serve
HF_TOKEN
PATH
";

    fn told(text: &str, check: impl FnOnce(&Told<'_>)) {
        let plan = two_nodes();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machine = machines(&plan, &deployments).into_iter().nth(1).unwrap();
        let ran = Ran { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        check(&Told::new(machine, Ok(ran)));
    }

    fn serve() -> RunningProcess {
        RunningProcess {
            id: "dual/0/serve".into(),
            instance: Some(0),
            host: "head".into(),
            pid: 7,
            gpus: vec![0],
            log: "/no/such/file.log".into(),
            log_from: 0,
        }
    }

    #[test]
    fn a_host_is_told_whole() {
        // Before the end, where nothing is read any more.
        told(&format!("{MORE}{}", healthy()), |told| {
            let host = told.host();
            assert_eq!(host.host, "head");
            assert_eq!(host.kernel.known().unwrap(), "Linux 6.8.0-51-generic x86_64");
            assert_eq!(host.cpu.known().unwrap(), "AMD EPYC 9654 96-Core Processor");
            assert_eq!(host.cuda.known().unwrap(), "12.4");
            assert_eq!(host.gpus.known().unwrap().len(), 4);
            assert_eq!(host.gpus.known().unwrap()[0].driver.as_deref(), Some("550.54.15"));
            let links = host.links.known().unwrap();
            assert_eq!(links.keys().collect::<Vec<_>>(), ["eno1"], "lo has no hardware");
            assert_eq!(links["eno1"].driver.as_deref(), Some("mlx5_core"));
            let ib = host.infiniband.known().unwrap();
            assert_eq!(ib["mlx5_0/1"], "4: ACTIVE, 400 Gb/sec (4X NDR)");
            assert_eq!(host.packages["vllm"].known().unwrap()["vllm"], "0.11.0");
            assert_eq!(host.model_hashes.known().unwrap()["config.json"], "aa11");
            assert_eq!(host.memory_bytes, Fact::Known(1024));
        });
    }

    #[test]
    fn a_process_is_told_by_the_kernel_without_its_secrets() {
        told(MORE, |told| {
            let print = process(EngineKind::Vllm, &serve(), std::slice::from_ref(told));
            let words = print.command.known().unwrap().join(" ");
            let want = "/opt/venv/bin/python vllm serve --api-key *** *** --hf-token=*** \
                        --max-num-batched-tokens=256 ";
            assert_eq!(words, want);
            assert_eq!(print.env_names.known().unwrap(), &["HF_TOKEN", "PATH"]);
            let Fact::Absent { absent } = &print.log["kv_cache_tokens"] else { panic!("no log") };
            assert!(absent.starts_with("its log cannot be read: "), "{absent}");
        });
    }

    #[test]
    fn what_a_host_does_not_say_is_absent_with_a_reason() {
        told("@@ kernel\n\n@@ cuda\nFailed\n", |told| {
            let host = told.host();
            assert_eq!(host.kernel, Fact::absent("the host's 'kernel' is empty"));
            assert_eq!(host.cuda, Fact::absent("nvidia-smi names no CUDA version"));
            assert_eq!(host.system, Fact::absent("the host said nothing of 'system'"));
            let print = process(EngineKind::Vllm, &serve(), std::slice::from_ref(told));
            assert!(print.command.known().is_none());
        });
        let plan = two_nodes();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machine = machines(&plan, &deployments).into_iter().nth(1).unwrap();
        let error = ShellError::Ssh { host: "gpu-head".into(), said: "no route".into() };
        let host = Told::new(machine, Err(error)).host();
        assert_eq!(host.kernel, Fact::absent("ssh gpu-head: no route"));
        assert_eq!(host.gpus, Fact::absent("ssh gpu-head: no route"));
    }

    #[tokio::test]
    async fn this_machine_tells_of_a_process_here() {
        let pid = std::process::id();
        let calls = format!("kernel\ndrivers\nprocess a/0/x {pid}\nprocess a/0/y 0\n");
        let script = whole(PRINT, &calls);
        let ran = Shell::Here.run(&script, LIMIT).await.unwrap();
        let cut = Sections::cut(&ran.stdout);
        assert!(cut.get("kernel").unwrap().starts_with("Linux "), "{}", ran.stdout);
        assert!(cut.get("drivers").is_ok());
        let words = masked(cut.get("command a/0/x").unwrap().lines().map(str::to_owned).collect());
        let here: Vec<String> = std::env::args().collect();
        assert_eq!(words, here);
        let names: Vec<&str> = cut.get("environment a/0/x").unwrap().lines().collect();
        assert!(names.contains(&"PATH"), "{names:?}");
        let why = cut.get("command a/0/y").unwrap_err().to_string();
        assert_eq!(why, "/proc/0/cmdline cannot be read");
    }

    #[tokio::test]
    async fn below_a_shell_that_waits_the_engine_is_found() {
        let calls = "sh -c 'sleep 30 & wait' &\nleader=$!\nsleep 1\npid=$(child $leader)\n\
                     process a/0/x $pid\nkill $pid\n";
        let script = whole(PRINT, calls);
        let ran = Shell::Here.run(&script, LIMIT).await.unwrap();
        let cut = Sections::cut(&ran.stdout);
        assert_eq!(cut.get("command a/0/x").unwrap(), "=sleep\n=30\n");
    }

    #[test]
    fn versions_are_read_from_pages_of_engines() {
        let page = |status, body: &str| {
            Ok(Answer { status, content_type: "application/json".into(), body: body.into() })
        };
        let known = version(page(200, r#"{"version":"0.32.0"}"#), "/version", "version");
        assert_eq!(known, Fact::Known("0.32.0".to_owned()));
        for (answer, why) in [
            (page(404, ""), "/version: HTTP 404"),
            (page(200, r#"{"version":""}"#), "/version has no 'version'"),
            (Err(NoAnswer("refused".into())), "/version: refused"),
        ] {
            assert_eq!(version(answer, "/version", "version"), Fact::absent(why));
        }
    }
}

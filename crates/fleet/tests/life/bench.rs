//! What the tests stand on: a run directory, plans of one script each, and a small OpenAI server.

use scalebeam_fleet::engine::engines;
use scalebeam_fleet::journal::{self, Event, Journal};
use scalebeam_fleet::process::Member;
use scalebeam_fleet::{Context, FleetError, Progress, Running, Stop, bring_up};
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{
    DeploymentPlan, EngineKind, EntryPlan, EnvValue, Gate, InstancePlan, Plan, Platform, PortPlan,
    ProcessPlan, ReadyPlan, Role, StopPlan, resolve,
};
use scalebeam_model::spec::Experiment;
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// An engine in thirty lines: health, models, streamed chat.
const SERVER: &str = r#"
import http.server, json, sys
port, model = int(sys.argv[1]), sys.argv[2]
class H(http.server.BaseHTTPRequestHandler):
    def say(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def do_GET(self):
        if self.path == "/v1/models":
            self.say(200, "application/json", json.dumps({"data": [{"id": model}]}))
        else:
            self.say(200, "text/plain", "ok")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        chunks = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]},
                  {"choices": [{"delta": {"content": "hello"}}]},
                  {"choices": [], "usage": {"completion_tokens": 1}}]
        self.say(200, "text/event-stream", "".join("data: %s\n\n" % json.dumps(c) for c in chunks) + "data: [DONE]\n\n")
    def log_message(self, *a): pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), H).serve_forever()
"#;

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Nanos {
        read(rustix::time::ClockId::Monotonic)
    }

    fn unix_now(&self) -> Nanos {
        read(rustix::time::ClockId::Realtime)
    }
}

fn read(id: rustix::time::ClockId) -> Nanos {
    let t = rustix::time::clock_gettime(id);
    Nanos(u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap())
}

/// A run directory with everything that a bring-up needs.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ctx: Context,
    pub(crate) cancel: watch::Sender<Stop>,
    pub(crate) said: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(WallClock);
        let journal = Journal::open(&dir.path().join(journal::FILE), clock.clone()).unwrap();
        let (cancel, cancelled) = watch::channel(Stop::Not);
        let ctx = Context {
            run_dir: dir.path().to_owned(),
            run_id: "run-1".into(),
            exe: "/bin/false".into(),
            cache_dir: dir.path().join("cache"),
            base: dir.path().to_owned(),
            plan: Arc::new(empty_plan()),
            journal: Arc::new(journal),
            clock,
            stop: cancelled,
            on_nodes: None,
        };
        Self { dir, ctx, cancel, said: Arc::default() }
    }

    pub(crate) async fn up(&self, plan: &DeploymentPlan) -> Result<Running, FleetError> {
        let said = self.said.clone();
        let progress = move |p: Progress| {
            said.lock().unwrap().push(format!("{}: {}", p.state.name(), p.text));
        };
        tokio::time::timeout(Duration::from_secs(60), bring_up(plan, &self.ctx, &progress))
            .await
            .expect("a bring-up must end by itself")
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let contents = journal::read(self.ctx.journal.path()).unwrap();
        contents.entries.into_iter().map(|e| e.event).collect()
    }

    /// States that the deployment went through.
    pub(crate) fn states(&self) -> Vec<String> {
        let of = |event| match event {
            Event::DeploymentState { to, .. } => Some(to),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    pub(crate) fn signals(&self) -> Vec<String> {
        let of = |event| match event {
            Event::Signal { process, signal, .. } => Some(format!("{signal} {process}")),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    /// Reads a pid that a script wrote, once it is there.
    pub(crate) async fn pid(&self, file: &str) -> Member {
        let path = self.dir.path().join(file);
        let text =
            eventually(|| std::fs::read_to_string(&path).ok().filter(|t| t.ends_with('\n'))).await;
        let pid = text.trim().parse().unwrap();
        let stat = scalebeam_fleet::process::stat(pid).unwrap();
        Member { pid, start_ticks: stat.start_ticks }
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }
}

pub(crate) async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let looking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect("it must happen in 20 s")
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) fn process(id: &str, program: &str, args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        id: id.into(),
        instance: Some(0),
        host: "box".into(),
        program: program.into(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: BTreeMap::new(),
        ports: Vec::new(),
        gpus: Vec::new(),
        rank: 0,
        log: format!("logs/{}.log", id.replace('/', "-")),
        after: None,
        files: BTreeMap::new(),
    }
}

pub(crate) fn set_env(process: &mut ProcessPlan, name: &str, value: EnvValue) {
    process.env.insert(name.into(), value);
}

/// The plan around a deployment; it has no hosts.
fn empty_plan() -> Plan {
    let text = "schema = 1\nname = \"life\"\n[model]\nid = \"org/m\"\n\
                [[deploy]]\nname = \"d\"\nplatform = \"external\"\nengine = \"openai\"\n\
                endpoint = \"http://127.0.0.1:1\"\n\
                [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
                [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = 1\nrequests = 1\n";
    resolve(&Experiment::parse(text, "life", engines()).unwrap(), engines()).unwrap()
}

/// A deployment of `processes` that is ready once they are alive.
pub(crate) fn plan(processes: Vec<ProcessPlan>) -> DeploymentPlan {
    let alive = Gate::Alive { processes: u32::try_from(processes.len()).unwrap() };
    DeploymentPlan {
        name: "d".into(),
        platform: Platform::Local,
        engine: EngineKind::Vllm,
        version: None,
        image: None,
        params: BTreeMap::new(),
        launcher: None,
        model: "org/m".into(),
        served_model: "m".into(),
        gpus: 0,
        gpu_kinds: Vec::new(),
        instances: Vec::new(),
        processes,
        entries: Vec::new(),
        balance: Default::default(),
        api_key_env: None,
        headers_env: BTreeMap::new(),
        ca_file: None,
        http: scalebeam_model::api::HttpVersion::Http1,
        cache_reset: None,
        ready: ReadyPlan {
            timeout: Nanos::from_secs(30),
            within: BTreeMap::new(),
            gates: vec![alive],
        },
        stop: StopPlan { grace: Nanos::from_secs(5), always: true },
        price_per_hour: None,
        price_is_of_hosts: false,
        optional: false,
        cannot_run: None,
    }
}

/// `replicas` of the small server, with every gate.
pub(crate) fn servers(bench: &Bench, replicas: u32) -> DeploymentPlan {
    let script = bench.script("server.py", SERVER);
    let mut out = plan(Vec::new());
    for index in 0..replicas {
        let port = free_port();
        let id = format!("d/{index}/serve");
        let mut process = process(&id, PYTHON, &[&script, &port.to_string(), "m"]);
        process.instance = Some(index);
        process.ports.push(PortPlan { name: "http".into(), addr: "127.0.0.1".into(), port });
        out.processes.push(process);
        out.instances.push(InstancePlan {
            index,
            role: Role::Aggregated,
            tp: 1,
            pp: 1,
            dp: 1,
            dp_balance: None,
            ep: None,
            place: Vec::new(),
            port,
        });
        out.entries
            .push(EntryPlan { url: format!("http://127.0.0.1:{port}"), instance: Some(index) });
    }
    out.ready.gates = vec![
        Gate::Alive { processes: replicas },
        Gate::Http { path: "/health".into() },
        Gate::ModelListed { model: "m".into() },
        Gate::Instances { expected: BTreeMap::from([("aggregated".to_owned(), replicas)]) },
        Gate::Completion { apis: Vec::new() },
    ];
    out
}

/// Whether `needle` is in any file below `dir`.
pub(crate) fn is_anywhere(dir: &Path, needle: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let found = if path.is_dir() {
            is_anywhere(&path, needle)
        } else {
            let text = std::fs::read(&path).unwrap();
            String::from_utf8_lossy(&text).contains(needle).then_some(path)
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

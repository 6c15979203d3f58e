use super::*;
use crate::agent::{self, AgentConfig};
use scalebeam_model::telemetry::agent::AGENT_NAME;
use scalebeam_model::telemetry::{Part, Quantity, TelemetryPlan};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

/// The system's clock, ahead by so much: that of another machine.
#[derive(Debug)]
struct Ahead(Nanos);

impl Clock for Ahead {
    fn now(&self) -> Nanos {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
        Nanos(seconds.unwrap() * 1_000_000_000 + nanos.unwrap()) + self.0
    }

    fn unix_now(&self) -> Nanos {
        self.now()
    }
}

const FAR_AHEAD: Nanos = Nanos::from_secs(5_000);

/// An agent in this process, with a clock of its own.
struct Agent {
    dir: tempfile::TempDir,
    thread: JoinHandle<()>,
}

impl Agent {
    fn start(linger: Nanos) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), linger)
    }

    fn start_in(dir: tempfile::TempDir, linger: Nanos) -> Self {
        let path = dir.path().to_owned();
        let config = AgentConfig { version: "1".into(), own_id: Some("d/agent".into()), linger };
        let thread = std::thread::spawn(move || {
            agent::run(&path, config, Arc::new(Ahead(FAR_AHEAD))).unwrap();
        });
        let agent = Self { dir, thread };
        agent.until(|| agent.socket().exists());
        agent
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    fn until(&self, is: impl Fn() -> bool) {
        (0..1000)
            .find(|_| {
                is() || {
                    std::thread::sleep(Duration::from_millis(10));
                    false
                }
            })
            .unwrap();
    }
}

/// Ways to an agent by the bridge that runs beside it, each of which can be cut.
#[derive(Debug, Clone)]
struct Ways {
    dir: PathBuf,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Ways {
    fn to(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: Arc::default() }
    }

    fn cut(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        open.iter().for_each(|way| way.shutdown(std::net::Shutdown::Both).unwrap());
    }
}

struct Cut(UnixStream);

impl Carrier for Cut {
    fn last_words(&mut self) -> Option<String> {
        None
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Reach for Ways {
    fn connect(&self) -> Result<Link, String> {
        let (near, far) = UnixStream::pair().unwrap();
        let (dir, output) = (self.dir.clone(), far.try_clone().unwrap());
        std::thread::spawn(move || {
            let closing = output.try_clone().unwrap();
            let _ = agent::attach(&dir, "1", far, output);
            let _ = closing.shutdown(std::net::Shutdown::Both);
        });
        let again = || near.try_clone().unwrap();
        self.open.lock().unwrap().push(again());
        let carrier = Box::new(Cut(again()));
        Ok(Link { input: Box::new(again()), output: Box::new(near), carrier })
    }
}

fn watch(ways: &Ways) -> FarWatch {
    watch_by(ways, Arc::new(Ahead(Nanos::ZERO)))
}

fn watch_by(ways: &Ways, clock: Arc<dyn Clock>) -> FarWatch {
    let plan = TelemetryPlan { interval: Nanos::from_millis(100), ..TelemetryPlan::default() };
    let plan = TelemetryPlan { gpu: false, rdma: false, ..plan };
    let watching =
        Watching { host: "node1".into(), plan, marker: "NO=such".into(), ..Watching::default() };
    FarWatch::start(watching, Box::new(ways.clone()), clock).unwrap()
}

/// The longest time between two readings of the cores.
fn longest_gap(found: &Telemetry) -> Nanos {
    let host = found.devices(Part::Host)[0];
    let readings = &found.of(host, Quantity::CpuBusy).unwrap().readings;
    readings.windows(2).map(|w| w[1].at() - w[0].at()).max().unwrap()
}

#[test]
fn what_another_machine_did_is_here_in_our_time() {
    let agent = Agent::start(LINGER);
    let watch = watch(&Ways::to(agent.dir.path()));
    let before = Ahead(Nanos::ZERO).now();
    watch.begin().wait().unwrap();
    let begun = Ahead(Nanos::ZERO).now();
    std::thread::sleep(Duration::from_millis(350));
    let found = watch.end().wait().unwrap();
    let after = Ahead(Nanos::ZERO).now();
    let busy = found.of(found.devices(Part::Host)[0], Quantity::CpuBusy).unwrap();
    assert!(busy.readings.len() >= 3, "{busy:?}");
    let (first, last) = (busy.readings[0], busy.readings[busy.readings.len() - 1]);
    let clock = found.clocks[0].clone();
    let bound = Nanos::from_millis(200);
    assert!(clock.bound_s < bound.as_secs_f64() && clock.stepped_s.is_none(), "{clock:?}");
    assert!((clock.offset_s - FAR_AHEAD.as_secs_f64()).abs() <= clock.bound_s, "{clock:?}");
    assert!(before <= first.to && first.from <= begun, "{before:?} {first:?} {begun:?}");
    assert!(begun < last.to && last.from <= after, "{begun:?} {last:?} {after:?}");
    assert!(found.devices(Part::Process).iter().any(|d| d.name == AGENT_NAME));
    assert_eq!(found.absent.iter().find(|a| a.what == "the machine"), None);
    // Nobody will ask again: it ends by itself.
    drop(watch);
    agent.thread.join().unwrap();
    assert!(!agent.dir.path().join("agent.sock").exists());
}

#[test]
fn a_broken_connection_costs_no_reading() {
    let agent = Agent::start(LINGER);
    let ways = Ways::to(agent.dir.path());
    let watch = watch(&ways);
    for _ in 0..2 {
        watch.begin().wait().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        ways.cut();
        std::thread::sleep(Duration::from_millis(300));
        let found = watch.end().wait().unwrap();
        assert!(longest_gap(&found) < Nanos::from_secs(1), "{found:?}");
        assert!(found.absent.iter().all(|a| a.what != "the end of its readings"), "{found:?}");
    }
}

#[test]
fn a_forgotten_agent_seals_its_spool_and_ends_and_its_spool_is_still_told() {
    let agent = Agent::start(Nanos::from_millis(200));
    agent.until(|| !agent.socket().exists());
    agent.thread.join().unwrap();
    let spool = std::fs::read_to_string(agent.dir.path().join("agent.spool")).unwrap();
    assert!(spool.contains("\"sealed\"") && spool.contains("nobody asked"), "{spool}");
    let watch = watch(&Ways::to(agent.dir.path()));
    watch.begin().wait().unwrap();
    let found = watch.end().wait().unwrap();
    assert_eq!(found.series, []);
    let absent = &found.absent[0];
    assert_eq!((absent.host.as_str(), absent.what.as_str()), ("node1", "the machine"));
    assert!(absent.why.contains("ended"), "{absent:?}");
}

#[test]
fn an_agent_outlives_whatever_a_connection_sends() {
    let agent = Agent::start(LINGER);
    let mut hostile = UnixStream::connect(agent.socket()).unwrap();
    hostile
        .write_all(b"\xff\xfe{]\n{\"ask\":\"begin\"}\n{\"ask\":\"from\",\"byte\":-1}\n\n[[[[")
        .unwrap();
    let mut endless = UnixStream::connect(agent.socket()).unwrap();
    // It hangs up before the line ends.
    let _ = endless.write_all(&vec![b'x'; 3 << 20]);
    drop((hostile, endless));
    let watch = watch(&Ways::to(agent.dir.path()));
    watch.begin().wait().unwrap();
    assert!(!watch.end().wait().unwrap().series.is_empty());
}

#[test]
fn who_cannot_be_reached_is_absent_with_the_reason() {
    #[derive(Debug)]
    struct Nobody;
    impl Reach for Nobody {
        fn connect(&self) -> Result<Link, String> {
            Err("ssh node1: no route".into())
        }
    }
    let watching = Watching { host: "node1".into(), ..Watching::default() };
    let clock = Arc::new(Waiting::default());
    let watch = FarWatch::start(watching, Box::new(Nobody), clock).unwrap();
    for _ in 0..2 {
        watch.begin().wait().unwrap();
        let found = watch.end().wait().unwrap();
        assert_eq!(found.absent[0].why, "ssh node1: no route");
    }
}

#[test]
fn a_spool_that_cannot_be_written_is_told_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("agent.spool")).unwrap();
    let agent = Agent::start_in(dir, LINGER);
    // A clock that stands still: no wait is ever over.
    let watch = watch_by(&Ways::to(agent.dir.path()), Arc::new(Standing));
    for _ in 0..2 {
        watch.begin().wait().unwrap();
        let found = watch.end().wait().unwrap();
        let absent = &found.absent[0];
        assert_eq!((absent.host.as_str(), absent.what.as_str()), ("node1", "the machine"));
        assert!(absent.why.contains("cannot write what it reads: No space left"), "{absent:?}");
    }
}

#[test]
fn who_was_lost_long_ago_is_not_waited_for() {
    let second = Nanos::from_secs(1);
    let waited =
        |lost_at| patience(Nanos::from_secs(100), lost_at, END_WAIT) - Nanos::from_secs(100);
    assert_eq!(waited(None), END_WAIT);
    let just = Nanos::from_secs(100) - LOST_AFTER;
    assert_eq!(waited(Some(just + second)), END_WAIT);
    assert_eq!(waited(Some(just)), LOST_WAIT);
}

/// A clock that goes on by a second at each look.
#[derive(Debug, Default)]
struct Waiting(std::sync::atomic::AtomicU64);

impl Clock for Waiting {
    fn now(&self) -> Nanos {
        Nanos(self.0.fetch_add(1_000_000_000, std::sync::atomic::Ordering::SeqCst))
    }

    fn unix_now(&self) -> Nanos {
        self.now()
    }
}

#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Nanos {
        Nanos::from_secs(1)
    }

    fn unix_now(&self) -> Nanos {
        self.now()
    }
}

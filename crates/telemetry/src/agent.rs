//! The agent: reads the machine that it runs on for somebody elsewhere.
//!
//! It is one process in one directory: a socket to be asked by, and a spool of everything that it read. A
//! connection tells the spool and takes what is asked; that it breaks costs nothing, and the next one goes
//! on where it ended. Where the spool cannot be written, as on a full disk, the borders of measurements are
//! owed to it, and whoever asked for one is told so at once, beside the spool. Who has not been asked
//! anything for [`LINGER`] has been forgotten: it seals its spool and ends.
//!
//! **Invariants.** Nothing is written but into that directory, which whoever started it removes. Whatever a
//! connection sends, an agent goes on: what it cannot read it skips.

mod bridge;
mod connection;
mod spool;

pub use bridge::attach;
pub(crate) use connection::next_line;

use crate::Readings;
use crate::readings::Look;
use crate::watch::{Watch, WatchConfig};
use connection::Connection;
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::agent::{AGENT_NAME, Ask, Border, PROTOCOL, Say, Watching, whole};
use scalebeam_model::telemetry::{Absent, Device, Part};
use scalebeam_model::units::Nanos;
use spool::Spool;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// An agent that nobody has asked anything for so long ends.
pub const LINGER: Nanos = Nanos::from_secs(120);
/// Where it is asked, in its directory.
const SOCKET: &str = "agent.sock";
/// What it read, in its directory.
const SPOOL: &str = "agent.spool";

/// What an agent is told when it is started.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// What it says of itself first.
    pub version: String,
    /// Its own id among processes of the run, which are watched: it has a row under its own name.
    pub own_id: Option<String>,
    /// How long it goes on without being asked.
    pub linger: Nanos,
}

/// Runs an agent in `dir` until it is told to end, or nobody has asked for long.
///
/// # Errors
/// When the directory cannot be made or written to.
pub fn run(dir: &Path, config: AgentConfig, clock: Arc<dyn Clock>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let place = Place::open(dir)?;
    let spool = Arc::new(Spool::create(&dir.join(SPOOL))?);
    remove_old(&dir.join(SOCKET))?;
    let listener = UnixListener::bind(place.short(SOCKET))?;
    let agent = Arc::new(Agent {
        heard: Mutex::new(Heard { at: clock.now(), bye: false }),
        told: Condvar::new(),
        watch: Mutex::new(Measuring::default()),
        config,
        spool,
        clock,
    });
    let accepting = Arc::clone(&agent);
    let thread = std::thread::Builder::new().name("connections".to_owned());
    thread.spawn(move || accept(&accepting, &listener))?;
    let why = agent.until_end();
    agent.seal(why);
    let _ = std::fs::remove_file(dir.join(SOCKET));
    Ok(())
}

/// The directory of an agent. The path of a socket has 107 bytes at most, which that of a directory may have
/// by itself.
#[derive(Debug)]
struct Place(File);

impl Place {
    fn open(dir: &Path) -> io::Result<Self> {
        File::open(dir).map(Self)
    }

    /// A short path of `name` in it, good as long as this value is there.
    fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

fn remove_old(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn accept(agent: &Arc<Agent>, listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        let agent = Arc::clone(agent);
        let thread = std::thread::Builder::new().name("connection".to_owned());
        // Where the system has no thread to give, the other end sees a closed connection and comes again.
        let _ = thread.spawn(move || serve(&agent, stream));
    }
}

fn serve(agent: &Arc<Agent>, stream: UnixStream) {
    let hello = Say::Hello {
        protocol: PROTOCOL,
        version: agent.config.version.clone(),
        pid: Some(std::process::id()),
    };
    // A connection that breaks has ended; there is nobody to tell.
    let _ = Connection::open(stream, &hello)
        .and_then(|mut connection| connection.serve(|ask, connection| agent.take(ask, connection)));
}

/// When it was asked last, and whether it was told to end.
#[derive(Debug)]
struct Heard {
    at: Nanos,
    bye: bool,
}

/// What is being watched.
#[derive(Debug, Default)]
struct Measuring {
    watch: Option<Watch>,
    begun: Option<u64>,
    ended: Option<u64>,
}

#[derive(Debug)]
struct Agent {
    config: AgentConfig,
    clock: Arc<dyn Clock>,
    spool: Arc<Spool>,
    heard: Mutex<Heard>,
    told: Condvar,
    watch: Mutex<Measuring>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Waits until it is told to end, or was not asked for long; says which.
    fn until_end(&self) -> &'static str {
        let mut heard = locked(&self.heard);
        loop {
            if heard.bye {
                return "it was told to end";
            }
            let silent = self.clock.now().since(heard.at);
            if silent >= self.config.linger {
                return "nobody asked it any more";
            }
            let rest = (self.config.linger - silent).to_std();
            let waited = self.told.wait_timeout(heard, rest);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn seal(&self, why: &str) {
        // The watch ends first: nothing is read behind the seal.
        locked(&self.watch).watch = None;
        // Nobody is left to be told where it cannot be written.
        let _ = self.spool.append(&[Say::Sealed { why: why.to_owned() }]);
    }

    /// Does what a connection asks.
    fn take(&self, ask: Ask, connection: &mut Connection) -> io::Result<()> {
        let got = self.clock.now();
        locked(&self.heard).at = got;
        match ask {
            Ask::Ping { n } => connection.say(&Say::Pong { n, got, sent: self.clock.now() }),
            Ask::From { byte } => connection.tell(Arc::clone(&self.spool), byte),
            Ask::Watch(watching) => {
                self.watch(*watching);
                Ok(())
            }
            Ask::Begin { measure } => {
                tell_unspooled(connection, Border::Begun, measure, self.begin(measure))
            }
            Ask::End { measure } => {
                tell_unspooled(connection, Border::Ended, measure, self.end(measure))
            }
            Ask::Bye => {
                locked(&self.heard).bye = true;
                self.told.notify_all();
                Ok(())
            }
        }
    }

    /// The first connection says what is watched; a later one says the same.
    fn watch(&self, watching: Watching) {
        let mut now = locked(&self.watch);
        if now.watch.is_some() {
            return;
        }
        let (host, what) = (watching.host.clone(), whole(watching.pod.as_ref()).to_owned());
        self.spool.is_of(&host);
        let tap = Writer::new(Arc::clone(&self.spool), self.config.own_id.clone());
        let config = WatchConfig::of(watching, AGENT_NAME);
        let started = Watch::tapped(config, Arc::clone(&self.clock), Box::new(tap.into_tap()));
        match started {
            Ok(watch) => now.watch = Some(watch),
            Err(error) => {
                let why = error.to_string();
                // Where this is lost, the spool says that something is.
                let _ = self.spool.append(&[Say::Absent(Absent { host, what, why })]);
            }
        }
    }

    /// Begins a measurement, once; why that is not in the spool, where it is not.
    fn begin(&self, measure: u64) -> Result<(), String> {
        let mut now = locked(&self.watch);
        if now.begun.is_some_and(|begun| begun >= measure) {
            return self.spool.catch_up();
        }
        now.begun = Some(measure);
        now.watch.iter().for_each(Watch::begin);
        self.spool.append_borders(&[Say::Begun { measure }])
    }

    /// Ends a measurement, once; why that is not in the spool, where it is not.
    fn end(&self, measure: u64) -> Result<(), String> {
        let mut now = locked(&self.watch);
        if now.ended.is_some_and(|ended| ended >= measure) {
            return self.spool.catch_up();
        }
        now.ended = Some(measure);
        // One that never began has nothing to end.
        let is_begun = now.begun == Some(measure);
        let telemetry = now.watch.as_ref().filter(|_| is_begun).and_then(Watch::end);
        let absent = telemetry.into_iter().flat_map(|t| t.absent).map(Say::Absent);
        self.spool.append_borders(&absent.chain([Say::Ended { measure }]).collect::<Vec<_>>())
    }
}

/// Whoever waits for a border reads the spool, which does not have it.
fn tell_unspooled(
    connection: &Connection,
    border: Border,
    measure: u64,
    spooled: Result<(), String>,
) -> io::Result<()> {
    match spooled {
        Ok(()) => Ok(()),
        Err(why) => connection.say(&Say::Unspooled { border, measure, why }),
    }
}

/// Writes what is read into the spool, devices by number.
struct Writer {
    spool: Arc<Spool>,
    /// What begins the name of processes that carry messages of this agent, and are none of the deployment.
    own_prefix: Option<String>,
    ids: BTreeMap<Device, u32>,
}

impl Writer {
    fn new(spool: Arc<Spool>, own_id: Option<String>) -> Self {
        Self { spool, own_prefix: own_id.map(|id| format!("{id} ")), ids: BTreeMap::new() }
    }

    fn into_tap(mut self) -> impl FnMut(Readings) + Send {
        move |readings| self.write(readings)
    }

    fn write(&mut self, readings: Readings) {
        let mut says = Vec::new();
        for Look { device, from, to, values } in readings.looks() {
            if self.is_own(&device) {
                continue;
            }
            let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
            let id = *self.ids.entry(device.clone()).or_insert_with(|| {
                says.push(Say::Device { id: next, device });
                next
            });
            says.push(Say::Read { id, from, to, values });
        }
        // Devices of lines that were lost are told anew.
        if self.spool.append(&says).is_err() {
            self.ids.clear();
        }
    }

    fn is_own(&self, device: &Device) -> bool {
        let named = |prefix: &String| device.name.starts_with(prefix.as_str());
        device.part == Part::Process && self.own_prefix.as_ref().is_some_and(named)
    }
}

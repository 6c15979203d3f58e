//! The thread that reads every source before, during and after a measurement.

use crate::controller;
use crate::gpu::amd::Cards;
use crate::gpu::amd_smi;
use crate::gpu::nvml::{self, Gpus};
use crate::gpu::smi::Smi;
use crate::host::Host;
use crate::network::{Interfaces, RdmaPorts};
use crate::package::Packages;
use crate::pod::Pod;
use crate::poll::{Poll, Poller};
use crate::process::{Processes, Watched};
use crate::readings::{Readings, Roots, Source};
use nvml_wrapper::Nvml;
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::agent::{THE_POD, WatchedPod, Watching};
use scalebeam_model::telemetry::table::Maker;
use scalebeam_model::telemetry::{Absent, Telemetry, TelemetryPlan};
use scalebeam_model::units::Nanos;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

/// What is watched on this machine.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// What readings call this machine.
    pub host: String,
    /// What is read, and how often.
    pub plan: TelemetryPlan,
    /// Processes to read; absent where none is known.
    pub watched: Option<Watched>,
}

/// Takes what each look at the machine gave, in place of the end.
pub(crate) type Tap = Box<dyn FnMut(Readings) + Send>;

impl WatchConfig {
    /// What `watching` says, by a process that calls itself `own_name`.
    pub fn of(watching: Watching, own_name: &str) -> Self {
        let Watching { host, plan, marker, id_variable, roles, elsewhere, started, pod } = watching;
        let own_name = Some(own_name.to_owned());
        let watched = Watched { marker, id_variable, roles, elsewhere, started, own_name, pod };
        Self { host, plan, watched: Some(watched) }
    }

    /// The pod that this machine is; absent for a whole machine.
    fn pod(&self) -> Option<&WatchedPod> {
        self.watched.as_ref()?.pod.as_ref()
    }
}

/// A watch over this machine. Nothing is read between measurements.
#[derive(Debug)]
pub struct Watch {
    asks: Option<Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
#[derive(Debug)]
enum Ask {
    /// Read from now on; answered after the first readings.
    Begin(Sender<()>),
    /// Read once more and hand over what was read.
    End(Sender<Telemetry>),
}

impl Watch {
    /// Starts the thread. Sources are opened on it, and absent ones are told with the readings.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(config: WatchConfig, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Self::begin_thread(config, clock, Vec::new(), None)
    }

    /// The same; `polls` are asked too.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start_with(
        config: WatchConfig,
        clock: Arc<dyn Clock>,
        polls: Vec<Poll>,
    ) -> std::io::Result<Self> {
        Self::begin_thread(config, clock, polls, None)
    }

    /// As [`Watch::start`]; a tap is given everything as soon as it was read, and the end has nothing of it.
    pub(crate) fn tapped(
        config: WatchConfig,
        clock: Arc<dyn Clock>,
        tap: Tap,
    ) -> std::io::Result<Self> {
        Self::begin_thread(config, clock, Vec::new(), Some(tap))
    }

    fn begin_thread(
        config: WatchConfig,
        clock: Arc<dyn Clock>,
        polls: Vec<Poll>,
        tap: Option<Tap>,
    ) -> std::io::Result<Self> {
        let (asks, asked) = channel();
        let thread = std::thread::Builder::new().name("telemetry".to_owned());
        let thread = thread.spawn(move || serve(&config, &clock, &asked, polls, tap))?;
        Ok(Self { asks: Some(asks), thread: Some(thread) })
    }

    /// Begins to read; returns once everything was read for the first time. Whatever an earlier
    /// measurement left is forgotten.
    pub fn begin(&self) {
        let (sender, answer) = channel();
        if self.ask(Ask::Begin(sender)) {
            // An error says that the thread has ended; then nothing is read, and the end says so.
            let _ = answer.recv();
        }
    }

    /// Reads once more, stops reading and gives what was read since [`Watch::begin`]; nothing where the
    /// thread has ended.
    pub fn end(&self) -> Option<Telemetry> {
        let (sender, answer) = channel();
        self.ask(Ask::End(sender)).then(|| answer.recv().ok())?
    }

    fn ask(&self, ask: Ask) -> bool {
        self.asks.as_ref().is_some_and(|asks| asks.send(ask).is_ok())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is told where it happened.
            let _ = thread.join();
        }
    }
}

/// The thread's life.
fn serve(
    config: &WatchConfig,
    clock: &Arc<dyn Clock>,
    asked: &Receiver<Ask>,
    polls: Vec<Poll>,
    mut tap: Option<Tap>,
) {
    let mut absent = Absences { host: &config.host, all: Vec::new() };
    let nvml = if config.plan.gpu { load_nvml(&mut absent) } else { None };
    let mut sources = sources(config, nvml.as_ref(), clock, &mut absent);
    for poll in polls {
        let (host, what) = (poll.host.clone(), poll.what.clone());
        match Poller::start(poll, clock) {
            Ok(poller) => sources.push(boxed(poller)),
            Err(why) => absent.all.push(Absent { host, what, why }),
        }
    }
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Begin(begun) => {
                let mut readings = Readings::default();
                let mut look = |moment, readings: &mut Readings| {
                    read_all(&mut sources, moment, clock.as_ref(), readings);
                    tap.iter_mut().for_each(|tap| tap(readings.take_values()));
                };
                begin(&mut look, &mut readings);
                let _ = begun.send(());
                let Some(ended) = read_until_end(config, clock, asked, &mut look, &mut readings)
                else {
                    return;
                };
                look(Moment::End, &mut readings);
                let _ = ended.send(readings.finish(config.plan.interval, absent.all.clone()));
            }
            Ask::End(ended) => drop(ended),
        }
    }
}

/// Reads at every multiple of the interval; nothing where nobody will ask for the end.
fn read_until_end(
    config: &WatchConfig,
    clock: &Arc<dyn Clock>,
    asked: &Receiver<Ask>,
    look: &mut impl FnMut(Moment, &mut Readings),
    readings: &mut Readings,
) -> Option<Sender<Telemetry>> {
    let interval = Nanos(config.plan.interval.0.max(1));
    let mut due = clock.now() + interval;
    loop {
        match asked.recv_timeout((due - clock.now()).to_std()) {
            Err(RecvTimeoutError::Disconnected) => return None,
            Ok(Ask::End(ended)) => return Some(ended),
            Ok(Ask::Begin(begun)) => {
                *readings = Readings::default();
                begin(look, readings);
                let _ = begun.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock.now();
        if now < due {
            continue;
        }
        look(Moment::Between, readings);
        // Who was suspended does not catch up: what was missed is a gap.
        let missed = (clock.now() - due).0 / interval.0;
        due += Nanos(interval.0.saturating_mul(missed + 1));
    }
}

/// Reads everything for the first time. Who was read before the others has then waited for those that answer slowly, and
/// is read again.
fn begin(look: &mut impl FnMut(Moment, &mut Readings), readings: &mut Readings) {
    look(Moment::Begin, readings);
    look(Moment::Between, readings);
}

/// When in a measurement a source is read.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Begin,
    Between,
    End,
}

fn read_all(
    sources: &mut [Box<dyn Source + '_>],
    moment: Moment,
    clock: &dyn Clock,
    readings: &mut Readings,
) {
    for source in sources.iter_mut() {
        match moment {
            Moment::Begin => source.before_begin(),
            Moment::Between => {}
            Moment::End => source.before_end(),
        }
    }
    for source in sources {
        match moment {
            Moment::Begin => source.begin(clock, readings),
            Moment::Between => source.read(clock, readings),
            Moment::End => source.end(clock, readings),
        }
    }
}

/// What is not there, and why.
struct Absences<'a> {
    host: &'a str,
    all: Vec<Absent>,
}

impl Absences<'_> {
    fn found<T>(&mut self, what: &str, opened: Result<T, String>) -> Option<T> {
        opened.map_err(|why| self.note(what, why)).ok()
    }

    fn note(&mut self, what: &str, why: String) {
        let (host, what) = (self.host.to_owned(), what.to_owned());
        self.all.push(Absent { host, what, why });
    }
}

fn load_nvml(absent: &mut Absences<'_>) -> Option<Nvml> {
    absent.found("GPUs by NVML", nvml::load())
}

fn sources<'n>(
    config: &WatchConfig,
    nvml: Option<&'n Nvml>,
    clock: &Arc<dyn Clock>,
    absent: &mut Absences<'_>,
) -> Vec<Box<dyn Source + 'n>> {
    let (roots, host, plan) = (Roots::default(), &config.host, &config.plan);
    let mut sources: Vec<Box<dyn Source + 'n>> = Vec::new();
    if plan.gpu {
        sources.extend(gpus(config, nvml, clock, absent));
    }
    if plan.host {
        let read = match config.pod() {
            Some(pod) => absent.found(THE_POD, Pod::open(&roots, host, pod)).map(boxed),
            None => absent.found("cores and memory", Host::open(&roots, host)).map(boxed),
        };
        sources.extend(read);
        let read = absent.found("network", Interfaces::open(&roots, host));
        sources.extend(read.map(boxed));
        let watched = config.watched.clone();
        sources.extend(watched.map(|w| boxed(Processes::new(&roots, host, w))));
    }
    match config.pod() {
        None => sources.extend(of_machine(config, &roots, clock, absent)),
        Some(_) if plan.rdma => absent.note("InfiniBand and RoCE", ALL_OF_THE_NODE.to_owned()),
        Some(_) => {}
    }
    sources
}

/// Why something is not read in a pod.
const ALL_OF_THE_NODE: &str = "what a pod sees of it is its node's, which others use too";

/// What belongs to a machine as a whole.
fn of_machine<'n>(
    config: &WatchConfig,
    roots: &Roots,
    clock: &Arc<dyn Clock>,
    absent: &mut Absences<'_>,
) -> Vec<Box<dyn Source + 'n>> {
    let (host, plan) = (&config.host, &config.plan);
    let mut sources: Vec<Box<dyn Source + 'n>> = Vec::new();
    if plan.host {
        let read = absent.found("power of the processors", Packages::open(roots, host));
        sources.extend(read.map(boxed));
    }
    if plan.rdma {
        let read = absent.found("InfiniBand and RoCE", RdmaPorts::open(roots, host));
        sources.extend(read.map(boxed));
    }
    // Behind all others, which shall not wait for its answers.
    if plan.host {
        let ipmi = controller::ipmi(host, plan.ipmi, clock);
        let ipmi = ipmi.and_then(|poll| Poller::start(poll, clock));
        sources.extend(absent.found("power by IPMI", ipmi).map(boxed));
    }
    sources
}

fn boxed<'n>(source: impl Source + 'n) -> Box<dyn Source + 'n> {
    Box::new(source)
}

/// By the library or the kernel, else by the program of their maker.
fn gpus<'n>(
    config: &WatchConfig,
    nvml: Option<&'n Nvml>,
    clock: &Arc<dyn Clock>,
    absent: &mut Absences<'_>,
) -> Option<Box<dyn Source + 'n>> {
    let by_library = nvml.map(|nvml| Gpus::open(nvml, &config.host));
    match by_library {
        Some(Ok(gpus)) => return Some(boxed(gpus)),
        Some(Err(why)) => absent.note("GPUs by NVML", why),
        None => {}
    }
    let program = |maker| Smi::start(maker, &config.host, config.plan.interval, clock);
    if let Some(smi) = absent.found("GPUs by nvidia-smi", program(Maker::Nvidia)) {
        return Some(boxed(smi));
    }
    if config.pod().is_some() {
        absent.note("GPUs of other makers", ALL_OF_THE_NODE.to_owned());
        return None;
    }
    if let Some(cards) = Cards::open(&Roots::default(), &config.host) {
        // In a guest the kernel shows a card, and its sensors are the host's.
        let by_program = || amd_smi::start(&config.host, config.plan.interval, clock);
        let by_program = (!cards.tell_power()).then(by_program);
        let by_program = by_program.and_then(|smi| absent.found("power of GPUs by amd-smi", smi));
        return by_program.or_else(|| Some(boxed(cards)));
    }
    let others = [Maker::Intel, Maker::Gaudi].map(program);
    let whys: Vec<String> = others.iter().filter_map(|o| o.as_ref().err().cloned()).collect();
    let found = others.into_iter().find_map(Result::ok);
    if found.is_none() {
        let why = format!("no card of AMD in /sys/class/drm; {}", whys.join("; "));
        absent.note("GPUs of other makers", why);
    }
    found.map(boxed)
}

#[cfg(test)]
mod tests;

//! The checks: one table, each a pure function from what was seen to a verdict.
//!
//! **Invariants.** No file, no process, no clock: facts come in, a verdict goes out. What is not known
//! comes as an error and leaves as a skip with that reason, so `?` on a fact is all that a check has to
//! do about a host that could not tell.
//!
//! To add a check: a function in one of the modules here and one entry in [`CHECKS`].

mod client;
mod cluster;
mod gpu;
mod host;
pub(super) mod kubernetes;
pub(super) mod modal;
mod network;
mod plan;
mod slurm;
mod software;

use super::sections::{Known, Unknown};
use super::seen::{Host, Seen, nodes_to_come};
use Severity::{Records, Stops, Warns};
use scalebeam_model::doctor::{Finding, Outcome, Severity};
use scalebeam_model::plan::{DeploymentPlan, Platform};

/// What a check says that could look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// All is well; what was seen.
    Pass(String),
    /// It is not.
    Fail {
        /// What was seen.
        seen: String,
        /// What to do about it.
        hint: String,
    },
}

/// What a check says, or why it could not look.
pub(crate) type Verdict = Known<Said>;

fn pass(seen: impl Into<String>) -> Verdict {
    Ok(Said::Pass(seen.into()))
}

fn fail(seen: impl Into<String>, hint: impl Into<String>) -> Verdict {
    Ok(Said::Fail { seen: seen.into(), hint: hint.into() })
}

fn skip(why: impl Into<String>) -> Verdict {
    Err(Unknown::because(why))
}

/// A pass with `seen`, unless something is `wrong`: then a failure with all of it.
fn unless(wrong: Vec<String>, seen: impl Into<String>, hint: impl Into<String>) -> Verdict {
    if wrong.is_empty() { pass(seen) } else { fail(wrong.join("; "), hint) }
}

/// What a check looks at, and once for each of which it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    /// Each deployment.
    Deployment(fn(&Seen<'_>, &DeploymentPlan) -> Verdict),
    /// Each deployment on one of these platforms.
    On(&'static [Platform], fn(&Seen<'_>, &DeploymentPlan) -> Verdict),
    /// Each machine that runs a process of the plan.
    Host(fn(&Seen<'_>, &Host<'_>) -> Verdict),
    /// The machine that sends the load.
    Client(fn(&Seen<'_>) -> Verdict),
}

/// A check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) id: &'static str,
    /// What it asks, in a few words.
    pub(crate) asks: &'static str,
    pub(crate) severity: Severity,
    pub(crate) look: Look,
}

const fn check(id: &'static str, severity: Severity, asks: &'static str, look: Look) -> Check {
    Check { id, asks, severity, look }
}

/// Every check, in the order of their ids. One id may ask in several ways, with severities of their own.
pub(crate) const CHECKS: &[Check] = &[
    check("D01", Warns, "this version can bring it up", Look::Deployment(plan::can_run)),
    check("D02", Stops, "GPUs and ranks agree", Look::Deployment(plan::shape)),
    check("D03", Stops, "tp divides the attention heads", Look::Deployment(plan::heads)),
    check("D04", Warns, "weights fit the GPUs", Look::Deployment(plan::weights)),
    check("D05", Stops, "prompt and answer fit the context", Look::Deployment(plan::context)),
    check("D06", Warns, "load is long enough, within the batch", Look::Deployment(plan::load)),
    check("D10", Stops, "host is reached", Look::Host(network::reached)),
    check("D10", Stops, "data-plane address is there", Look::Host(network::address)),
    check("D11", Warns, "host name is not a loopback address", Look::Host(network::resolves)),
    check("D12", Stops, "ports of the plan are free", Look::Host(network::ports)),
    check("D12", Stops, "hosts reach each other", Look::Host(network::peers)),
    check("D12", Warns, "any port between hosts is open", Look::Host(network::any_port)),
    check("D13", Records, "link and round trip", Look::Host(network::link)),
    check("D13", Records, "speed between hosts", Look::Host(network::speed)),
    check("D13", Warns, "MTU is equal over hosts", Look::Deployment(network::mtu)),
    check("D14", Warns, "InfiniBand is used where it is up", Look::Host(network::infiniband)),
    check("D15", Warns, "no proxy on the data plane", Look::Host(network::proxy)),
    check("D20", Stops, "GPUs of the plan are there", Look::Host(gpu::present)),
    check("D20", Warns, "MIG is off, persistence is on", Look::Host(gpu::modes)),
    check("D20", Warns, "GPUs and drivers are equal over hosts", Look::Deployment(gpu::alike)),
    check("D21", Stops, "GPUs are free", Look::Host(gpu::free)),
    check("D22", Warns, "NVLink between GPUs of a group", Look::Host(gpu::nvlink)),
    check("D23", Warns, "no power cap, throttling or low clock", Look::Host(gpu::throttle)),
    check("D24", Warns, "GPUs of a group reach each other", Look::Host(gpu::peer_access)),
    check("D24", Warns, "no ACS between GPUs of a group", Look::Host(gpu::acs)),
    check("D25", Stops, "NVSwitch fabric is up", Look::Host(gpu::fabric)),
    check("D30", Stops, "ray and python are equal over hosts", Look::Deployment(software::strict)),
    check("D30", Warns, "versions are equal over hosts", Look::Deployment(software::loose)),
    check("D31", Stops, "programs are installed", Look::Host(software::programs)),
    check("D32", Stops, "model is there", Look::Host(software::model)),
    check("D32", Stops, "model is equal over hosts", Look::Deployment(software::same_model)),
    check("D32", Records, "token for gated models", Look::Host(software::token)),
    check("D33", Warns, "space for the model", Look::Host(software::space)),
    check("D33", Warns, "model is not on a network file system", Look::Host(software::disk_kind)),
    check("D33", Warns, "weights are read in time", Look::Host(software::disk_speed)),
    check("D40", Stops, "shared memory for ranks", Look::Host(host::some_shm)),
    check("D40", Warns, "ample shared memory", Look::Host(host::ample_shm)),
    check("D40", Warns, "locked memory is not limited", Look::Host(host::locked_memory)),
    check("D40", Warns, "open files", Look::Host(host::open_files)),
    check("D40", Records, "huge pages", Look::Host(host::huge_pages)),
    check("D40", Records, "memory limit of the control group", Look::Host(host::cgroup)),
    check("D41", Warns, "a CPU for each GPU and two more", Look::Host(host::cpus)),
    check("D41", Warns, "GPUs of a group on one NUMA node", Look::Host(gpu::numa)),
    check("D42", Warns, "clock within 50 ms of this machine's", Look::Host(host::clock)),
    check("D50", Stops, "etcd and NATS answer", Look::Deployment(cluster::running)),
    check("D51", Stops, "Ray has every node", Look::Deployment(cluster::running)),
    check("D52", Stops, "entry answers", Look::Deployment(cluster::running)),
    check("D53", Warns, "tokens are counted alike", Look::Deployment(cluster::running)),
    check("D54", Warns, "answer length is forced", Look::Deployment(cluster::running)),
    check("D55", Warns, "prefix cache stays cold", Look::Deployment(cluster::running)),
    check("D56", Stops, "KV blocks move", Look::Deployment(cluster::running)),
    check("D60", Stops, "Kubernetes lets us", Look::On(KUBERNETES, kubernetes::may)),
    check("D60", Warns, "agents may come into pods", Look::On(KUBERNETES, kubernetes::exec)),
    check("D60", Stops, "Kubernetes knows the kind", Look::On(KUBERNETES, kubernetes::kind)),
    check("D60", Stops, "Kubernetes has the GPUs", Look::On(KUBERNETES, kubernetes::gpus)),
    check("D60", Stops, "the quota has room", Look::On(KUBERNETES, kubernetes::quota)),
    check("D60", Stops, "Secrets and claims are there", Look::On(KUBERNETES, kubernetes::there)),
    check("D61", Stops, "Slurm has nodes with the GPUs", Look::On(SLURM, slurm::nodes)),
    check("D61", Stops, "the partition lets it run so long", Look::On(SLURM, slurm::time)),
    check("D61", Stops, "Slurm knows the account", Look::On(SLURM, slurm::account)),
    check("D62", Stops, "Modal knows us", Look::On(MODAL, modal::token)),
    check("D62", Stops, "Secrets are there", Look::On(MODAL, modal::there)),
    check("D62", Records, "Volume of the model cache", Look::On(MODAL, modal::volume)),
    check("D62", Warns, "no other app of it lives", Look::On(MODAL, modal::others)),
    check("D70", Warns, "files and ports for the load", Look::Client(client::limits)),
    check("D80", Records, "price, and that it is taken down", Look::Deployment(plan::price)),
];

const KUBERNETES: &[Platform] = kubernetes::PLATFORMS;
const SLURM: &[Platform] = &[Platform::Slurm];
const MODAL: &[Platform] = &[Platform::Modal];

/// Asks every check.
pub(crate) fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check.ask(seen)).collect()
}

impl Check {
    fn ask(&self, seen: &Seen<'_>) -> Vec<Finding> {
        let of = |d: &DeploymentPlan, verdict| self.finding(None, Some(&d.name), verdict);
        match self.look {
            Look::Deployment(look) => {
                seen.deployments.iter().map(|d| of(d, look(seen, d))).collect()
            }
            Look::On(platforms, look) => {
                let ours = seen.deployments.iter().filter(|d| platforms.contains(&d.platform));
                ours.map(|d| of(d, seen.not_given(d).and_then(|()| look(seen, d)))).collect()
            }
            Look::Host(look) => {
                let hosts = seen.working();
                let found =
                    hosts.map(|h| self.finding(Some(&h.machine.label), None, look(seen, h)));
                found.chain(seen.to_come().map(|d| of(d, Err(nodes_to_come())))).collect()
            }
            Look::Client(look) => {
                vec![self.finding(Some(super::machine::HERE), None, look(seen))]
            }
        }
    }

    fn finding(&self, host: Option<&str>, deployment: Option<&str>, verdict: Verdict) -> Finding {
        Finding {
            id: self.id.to_owned(),
            check: self.asks.to_owned(),
            severity: self.severity,
            host: host.map(str::to_owned),
            deployment: deployment.map(str::to_owned),
            outcome: match verdict {
                Ok(Said::Pass(seen)) => Outcome::Pass { seen },
                Ok(Said::Fail { seen, hint }) => Outcome::Fail { seen, hint },
                Err(Unknown(reason)) => Outcome::Skipped { reason },
            },
        }
    }
}

/// The value of a flag among the arguments of a deployment's processes: that of the first which has it.
fn flag<'a>(deployment: &'a DeploymentPlan, name: &str) -> Option<&'a str> {
    deployment.processes.iter().find_map(|p| flag_of(&p.args, name))
}

/// The value of `--name value` or `--name=value`; the last one counts, as it does for the engines.
fn flag_of<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let value = |at: usize, arg: &'a String| match arg.strip_prefix(name)? {
        "" => args.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    };
    args.iter().enumerate().rev().find_map(|(at, arg)| value(at, arg))
}

/// `no GPU`, `1 GPU`, `2 GPUs`.
fn many(count: impl TryInto<u64>, one: &str, plural: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        n => format!("{n} {one}{plural}"),
    }
}

/// Bytes for people.
fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let gib = bytes as f64 / f64::from(1u32 << 30);
    format!("{} GiB", scalebeam_model::units::significant(gib))
}

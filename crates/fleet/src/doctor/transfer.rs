//! How fast and on any port hosts reach each other: one transfer of a second from each to its next, by
//! sockets of our own.
//!
//! **Invariants.** A listener takes one connection on a free port of the data-plane address and is gone
//! within seconds, whatever happens. Transfers run one after the other, so that none is in another's way.

use super::machine::{Machine, peers};
use super::probe::programs;
use super::sections::{Known, Unknown};
use crate::error::in_words;
use crate::host::{ShellError, quote};
use scalebeam_model::units::Nanos;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

/// Both ends of a transfer, for Python and for Perl: each can be the other's other end.
const TRANSFER: &str = include_str!("transfer.py");
const TRANSFER_PERL: &str = include_str!("transfer.pl");
/// What the latter needs.
const PERL: &str = "perl -MTime::HiRes -MIO::Socket::IP";
/// For a listener to say its port, the way there included.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);
/// For the transfer, the way there included.
const SEND_LIMIT: Duration = Duration::from_secs(20);

/// What a transfer showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed {
    pub(crate) rtt: Nanos,
    pub(crate) bytes_per_s: f64,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moved {
    /// It went through.
    At(Speed),
    /// It did not, and why.
    Not(String),
}

/// A transfer from one machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    /// Label of the machine that it went to.
    pub(crate) to: String,
    pub(crate) moved: Known<Moved>,
}

/// For each machine the next one that it talks to; a ring takes every link in both directions.
fn routes(machines: &[Machine<'_>]) -> Vec<(usize, usize)> {
    let route = |from: usize| {
        let known = peers(machines, machines.get(from)?);
        let is_peer = |m: &Machine<'_>| known.iter().any(|(label, ..)| *label == m.label);
        let mut next = (1..machines.len()).map(|step| (from + step) % machines.len());
        next.find(|to| machines.get(*to).is_some_and(is_peer)).map(|to| (from, to))
    };
    (0..machines.len()).filter_map(route).collect()
}

/// Transfers from each of `machines` that talks to another; in their order, absent for the others. One that
/// is not `reached` takes no part.
pub(super) async fn run(machines: &[Machine<'_>], reached: &[bool]) -> Vec<Option<Sent>> {
    let mut sent: Vec<Option<Sent>> = machines.iter().map(|_| None).collect();
    for (from, to) in routes(machines) {
        let both = [from, to].map(|at| reached.get(at).copied().unwrap_or(false));
        let (Some(sender), Some(receiver)) = (machines.get(from), machines.get(to)) else {
            continue;
        };
        let moved = match both {
            [true, true] => transfer(sender, receiver).await,
            _ => Err(Unknown::because("a host of the two was not reached (D10)")),
        };
        if let Some(place) = sent.get_mut(from) {
            *place = Some(Sent { to: receiver.label.clone(), moved });
        }
    }
    sent
}

async fn transfer(sender: &Machine<'_>, receiver: &Machine<'_>) -> Known<Moved> {
    let host = receiver.hosts.first().ok_or_else(|| Unknown::because("it has no address"))?;
    let (listener, port) = listen(receiver, &host.addr).await?;
    let script = script(sender, &["send", &host.addr, &port]);
    let ran = sender.shell.run(&script, SEND_LIMIT).await.map_err(broken);
    // It ends by itself; of this machine's end of it there is nothing more to hear.
    drop(listener);
    ended(&ran?.stdout, &sender.label)
}

/// A listener on a free port of `addr`, and that port.
async fn listen(receiver: &Machine<'_>, addr: &str) -> Known<(Child, String)> {
    let mut child = receiver.shell.start(Stdio::piped(), Stdio::null()).map_err(broken)?;
    let channel = || Unknown::because("no channel to the host");
    let mut stdin = child.stdin.take().ok_or_else(channel)?;
    let lines = BufReader::new(child.stdout.take().ok_or_else(channel)?).lines();
    let script = script(receiver, &["listen", addr]);
    let asked = async {
        stdin.write_all(script.as_bytes()).await?;
        stdin.shutdown().await?;
        drop(stdin);
        first_word(lines).await
    };
    let said = tokio::time::timeout(LISTEN_LIMIT, asked).await;
    let said = said.map_err(|_| Unknown::because("no listener came up in time"))?;
    let said = said.map_err(|e| Unknown(format!("no listener came up: {e}")))?;
    match said.split_once(' ') {
        Some(("port", port)) => Ok((child, port.to_owned())),
        _ => Err(Unknown(format!("{}: {said}", receiver.label))),
    }
}

/// The first line that is of our script; a login script may talk before it.
async fn first_word(
    mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
) -> std::io::Result<String> {
    while let Some(line) = lines.next_line().await? {
        if ["port ", "failed ", "absent "].iter().any(|word| line.starts_with(word)) {
            // The other end must not block on what nobody reads: there is nothing more of it.
            return Ok(line.trim_start_matches("failed ").trim_start_matches("absent ").to_owned());
        }
    }
    Err(std::io::Error::other("the host said nothing"))
}

/// One end of a transfer, by the Python of the plan or of the host, or else by Perl.
fn script(machine: &Machine<'_>, args: &[&str]) -> String {
    let path = programs(machine).into_values().flatten().next();
    let path = path.map_or(String::new(), |p| format!("PATH={}:$PATH; export PATH\n", quote(p)));
    let args = args.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" ");
    format!(
        "{path}if python3 -c '' >/dev/null 2>&1 </dev/null; then exec python3 -c {} {args} </dev/null; fi\n\
         if {PERL} -e 1 >/dev/null 2>&1 </dev/null; then exec perl -e {} {args} </dev/null; fi\n\
         echo 'absent neither python3 nor perl (with Time::HiRes) runs there'\n",
        quote(TRANSFER),
        quote(TRANSFER_PERL),
    )
}

/// `moved RTT_NS BYTES NS`, `failed WHY` or `absent WHY`.
fn ended(text: &str, sender: &str) -> Known<Moved> {
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("moved", numbers)) => {
                let unread = || Unknown(format!("a transfer said '{line}'"));
                return speed(numbers).map(Moved::At).ok_or_else(unread);
            }
            Some(("failed", why)) => return Ok(Moved::Not(why.to_owned())),
            Some(("absent", why)) => return Err(Unknown(format!("{sender}: {why}"))),
            _ => {}
        }
    }
    Err(Unknown(format!("{sender} said nothing of the transfer")))
}

fn speed(numbers: &str) -> Option<Speed> {
    let mut numbers = numbers.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (rtt_ns, bytes, ns) = (next()?, next()?, next()?);
    let took = Nanos(ns).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes_per_s = bytes as f64 / took;
    (took > 0.0).then_some(Speed { rtt: Nanos(rtt_ns), bytes_per_s })
}

fn broken(error: ShellError) -> Unknown {
    Unknown(format!("the transfer broke off: {}", in_words(&error)))
}

#[cfg(test)]
mod tests {
    use super::super::machine::machines;
    use super::super::testing::{emulated, two_nodes};
    use super::*;
    use crate::host::Shell;

    #[test]
    fn a_ring_joins_hosts_that_talk() {
        let plan = two_nodes();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machines = machines(&plan, &deployments);
        // The first is this machine, which has no rank.
        assert_eq!(routes(&machines), [(1, 2), (2, 1)]);
        let alone = emulated();
        let deployments: Vec<_> = alone.deployments.iter().collect();
        assert_eq!(routes(&super::super::machine::machines(&alone, &deployments)), []);
    }

    #[test]
    fn what_an_end_says_is_read() {
        let at = Speed { rtt: Nanos(120_000), bytes_per_s: 1.25e9 };
        assert_eq!(ended("Welcome\nmoved 120000 2500000000 2000000000\n", "a"), Ok(Moved::At(at)));
        let timed_out = Moved::Not("timed out".to_owned());
        assert_eq!(ended("failed timed out\n", "a"), Ok(timed_out));
        let absent = ended("absent python3 is not installed\n", "a").unwrap_err();
        assert_eq!(absent.to_string(), "a: python3 is not installed");
        assert!(ended("moved 1 2\n", "a").is_err() && ended("", "a").is_err());
        assert!(ended("moved 1 2 0\n", "a").is_err(), "no time, no speed");
    }

    #[tokio::test]
    async fn bytes_go_from_here_to_here() {
        let mut plan = emulated();
        plan.hosts.iter_mut().for_each(|h| h.addr = "127.0.0.1".to_owned());
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machine = machines(&plan, &deployments).remove(0);
        assert_eq!(machine.shell, Shell::Here);
        let Moved::At(speed) = transfer(&machine, &machine).await.unwrap() else {
            panic!("no speed")
        };
        assert!(speed.bytes_per_s > 0.0 && speed.rtt > Nanos::ZERO, "{speed:?}");
    }

    /// A script for hosts that have no Python.
    fn without_python(args: &[&str]) -> String {
        let plan = emulated();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machine = machines(&plan, &deployments).remove(0);
        script(&machine, args).replace("if python3 ", "if no-such-python ")
    }

    #[tokio::test]
    async fn a_host_without_python_is_one_end_by_perl_of_another_with() {
        let mut plan = emulated();
        plan.hosts.iter_mut().for_each(|h| h.addr = "127.0.0.1".to_owned());
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machine = machines(&plan, &deployments).remove(0);
        let (listener, port) = listen(&machine, "127.0.0.1").await.unwrap();
        let send = without_python(&["send", "127.0.0.1", &port]);
        let ran = Shell::Here.run(&send, SEND_LIMIT).await.unwrap();
        drop(listener);
        assert!(matches!(ended(&ran.stdout, "a"), Ok(Moved::At(_))), "{ran:?}");

        let ran = Shell::Here.run(&without_python(&["send", "127.0.0.1", "9"]), SEND_LIMIT).await;
        assert!(
            matches!(ended(&ran.unwrap().stdout, "a"), Ok(Moved::Not(why)) if why.contains("refused"))
        );
        let neither =
            without_python(&["listen", "127.0.0.1"]).replace("if perl ", "if no-such-perl ");
        let ran = Shell::Here.run(&neither, SEND_LIMIT).await.unwrap();
        let why = ended(&ran.stdout, "a").unwrap_err().to_string();
        assert_eq!(why, "a: neither python3 nor perl (with Time::HiRes) runs there");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_told() {
        let plan = emulated();
        let deployments: Vec<_> = plan.deployments.iter().collect();
        let machine = machines(&plan, &deployments).remove(0);
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let script = script(&machine, &["send", "127.0.0.1", &free.port().to_string()]);
        let ran = Shell::Here.run(&script, SEND_LIMIT).await.unwrap();
        let Ok(Moved::Not(why)) = ended(&ran.stdout, "a") else { panic!("{ran:?}") };
        assert!(why.contains("refused"), "{why}");
    }
}

//! D10 to D15: hosts, addresses, ports, links.

use super::{Verdict, fail, pass, skip, unless};
use crate::doctor::facts::{Facts, IbPort, Link, Listener};
use crate::doctor::sections::{Known, Unknown, told};
use crate::doctor::seen::{Host, Seen, Unreached};
use crate::doctor::transfer::{Moved, Speed};
use crate::host::Shell;
use scalebeam_model::plan::{DeploymentPlan, EnvValue, HostPlan};
use scalebeam_model::units::significant;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The interface of 127.0.0.0/8, of which only one address is listed.
const LOOPBACK: &str = "lo";

pub(super) fn reached(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    match &host.facts {
        Ok(_) => pass(match &host.machine.shell {
            Shell::Here => "it is this machine".to_owned(),
            Shell::Ssh(name) => format!("ssh {name}"),
            Shell::Step(step) => format!("srun on {}", step.node),
            Shell::Pod(pod) => format!("kubectl exec in {}", pod.name),
        }),
        // What runs there is started by another way, which may be open.
        Err(Unreached { said, hint }) if matches!(host.machine.shell, Shell::Step(_)) => {
            skip(format!("no step of ours looked at it: {said}; {hint}"))
        }
        Err(Unreached { said, hint }) => fail(said, hint),
    }
}

pub(super) fn address(seen: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let facts = host.facts()?;
    if host.machine.hosts.is_empty() {
        return skip("the file describes no such host");
    }
    let in_file = |planned: &HostPlan| {
        seen.plan.hosts.iter().any(|h| h.name == planned.name && h.addr == planned.addr)
    };
    if !host.machine.hosts.iter().any(|planned| in_file(planned)) {
        return skip("the file gives the host no addr, and the platform's may be one from outside");
    }
    let addresses = told(&facts.addresses)?;
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for planned in &host.machine.hosts {
        let Ok(addr) = planned.addr.parse::<IpAddr>() else { continue };
        let on = addresses.iter().find(|a| a.addr == addr).map(|a| a.iface.as_str());
        match misplaced(planned, addr, on) {
            Some(why) => wrong.push(why),
            None => drop(seen.insert(format!("{addr} on {}", on.unwrap_or(LOOPBACK)))),
        }
    }
    if wrong.is_empty() && seen.is_empty() {
        return skip("addr of the host is a name, not an address");
    }
    let seen: Vec<String> = seen.into_iter().collect();
    unless(wrong, seen.join(", "), "correct addr or iface of the host: `ip addr` lists both")
}

fn misplaced(planned: &HostPlan, addr: IpAddr, on: Option<&str>) -> Option<String> {
    match (on, &planned.iface) {
        // All of 127.0.0.0/8 is there without being listed, and no interface of the file has it.
        _ if addr.is_loopback() => None,
        (None, _) => Some(format!("{addr} is no address of the host")),
        (Some(on), Some(iface)) if on != iface => {
            Some(format!("{addr} is on {on}, not on {iface}"))
        }
        _ => None,
    }
}

pub(super) fn resolves(seen: &Seen<'_>, host: &Host<'_>) -> Verdict {
    if !seen.is_shared(host) {
        return skip("no deployment has another host that would ask for this one's name");
    }
    let found = told(&host.facts()?.resolves)?;
    let words = found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if found.is_empty() {
        return fail("it resolves to nothing", "give the host's own name an entry in /etc/hosts");
    }
    if found.iter().all(IpAddr::is_loopback) {
        return fail(
            format!("it resolves to {words}"),
            "ranks would wait at 127.0.0.1: give the name its data-plane address in /etc/hosts",
        );
    }
    pass(words)
}

pub(super) fn ports(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let facts = host.facts()?;
    let listeners = told(&facts.listeners)?;
    let planned = host.machine.ports();
    if planned.is_empty() {
        return skip("no process of the plan listens here");
    }
    let wanted = |addr: &str| bound_to(addr, &host.machine.shell);
    let taken = planned.iter().filter(|((p, addr), _)| is_taken(listeners, wanted(addr), *p));
    let wrong = taken.map(|((port, _), process)| {
        let by = facts.holders.get(port).map_or(String::new(), |who| format!(" by {who}"));
        format!("port {port}, needed by process {process}, is taken{by}")
    });
    let free: BTreeSet<u16> = planned.keys().map(|(port, _)| *port).collect();
    let free = free.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    unless(
        wrong.collect(),
        format!("{free} free"),
        "stop what listens there (scalebeam down, if it is ours), or choose another port",
    )
}

/// The one address that a server here is bound to; absent where it is every address, as on other hosts,
/// or a name, which may be any.
fn bound_to(addr: &str, shell: &Shell) -> Option<IpAddr> {
    let addr = addr.parse::<IpAddr>().ok().filter(|a| !a.is_unspecified());
    addr.filter(|_| *shell == Shell::Here)
}

/// Whether a listener is in the way of one on `wanted`, or on every address. One that is on every address
/// itself is in everybody's way.
fn is_taken(listeners: &[Listener], wanted: Option<IpAddr>, port: u16) -> bool {
    let same = |l: &Listener| wanted.is_none_or(|w| l.addr.is_unspecified() || l.addr == w);
    listeners.iter().any(|l| l.port == port && same(l))
}

pub(super) fn peers(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let facts = host.facts()?;
    if facts.peers.is_empty() {
        return skip("no process here talks to another host of the plan");
    }
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for (peer, said) in &facts.peers {
        match told(said)?.as_str() {
            // Nobody listens yet, so a refusal is what a host says that is there.
            "open" | "refused" => seen.push(format!("{peer} answers")),
            other => wrong.push(format!("{peer}: {other}")),
        }
    }
    unless(wrong, seen.join(", "), "look at routes and firewalls between the data-plane addresses")
}

/// The transfer from a host to one that it talks to.
fn sent<'h>(host: &'h Host<'_>) -> Known<(&'h str, &'h Moved)> {
    host.facts()?;
    let none = || Unknown::because("no process here talks to another host of the plan");
    let sent = host.sent.as_ref().ok_or_else(none)?;
    Ok((&sent.to, told(&sent.moved)?))
}

pub(super) fn any_port(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let (to, moved) = sent(host)?;
    match moved {
        Moved::At(_) => pass(format!("a port that {to} chose is reached")),
        Moved::Not(why) => fail(
            format!("a port that {to} chose: {why}"),
            "ranks meet on ports that the system chooses: open all of them between the hosts' addresses",
        ),
    }
}

pub(super) fn speed(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    match sent(host)? {
        (to, Moved::At(Speed { rtt, bytes_per_s })) => {
            let gbps = significant(bytes_per_s * 8.0 / 1e9);
            pass(format!("to {to} {gbps} Gbit/s by one socket, round trip {rtt}"))
        }
        (to, Moved::Not(why)) => skip(format!("nothing got to {to}: {why}")),
    }
}

/// The interface of a machine's data plane: the one that the file names, or that has its address.
fn data_link<'f>(host: &Host<'_>, facts: &'f Facts) -> Known<(String, &'f Link)> {
    let planned = host.machine.hosts.first();
    let planned = planned.ok_or_else(|| Unknown::because("the file describes no such host"))?;
    let by_addr = || {
        let addr: IpAddr = planned.addr.parse().ok()?;
        if addr.is_loopback() {
            return Some(LOOPBACK.to_owned());
        }
        let known = facts.addresses.as_ref().ok()?;
        Some(known.iter().find(|a| a.addr == addr)?.iface.clone())
    };
    let never = || Unknown(format!("no interface is known that has {}", planned.addr));
    let name = planned.iface.clone().or_else(by_addr).ok_or_else(never)?;
    let link = told(&facts.links)?.get(&name);
    let link = link.ok_or_else(|| Unknown(format!("the host has no interface {name}")))?;
    Ok((name, link))
}

pub(super) fn link(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let (name, link) = data_link(host, host.facts()?)?;
    let mut words = vec![format!("{name} {}", link.state)];
    words.extend(link.mtu.map(|m| format!("MTU {m}")));
    words.push(link.speed_mbps.map_or("speed not known".to_owned(), |s| format!("{s} Mbit/s")));
    words.push(match &host.rtt {
        Ok(rtt) => format!("round trip from here {rtt}"),
        Err(why) => format!("round trip not measured: {why}"),
    });
    pass(words.join(", "))
}

pub(super) fn mtu(seen: &Seen<'_>, d: &DeploymentPlan) -> Verdict {
    seen.several(d)?;
    let mut found = Vec::new();
    for host in seen.of(d) {
        let (name, link) = data_link(host, host.facts()?)?;
        let mtu = link.mtu.ok_or_else(|| Unknown(format!("{name} tells no MTU")))?;
        found.push((format!("{} {mtu}", host.machine.label), mtu));
    }
    let words = found.iter().map(|(w, _)| w.as_str()).collect::<Vec<_>>().join(", ");
    let distinct: BTreeSet<u32> = found.iter().map(|(_, mtu)| *mtu).collect();
    if distinct.len() == 1 {
        return pass(words);
    }
    fail(words, "set the same MTU on every interface of the data plane, and on its switch")
}

pub(super) fn infiniband(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let facts = host.facts()?;
    let ports = told(&facts.infiniband)?;
    if ports.is_empty() {
        return skip("the host has no InfiniBand or RoCE port");
    }
    let one = |p: &IbPort| {
        let gid = if p.gid3.is_empty() { String::new() } else { format!(", GID 3 {}", p.gid3) };
        format!("{} {}, {}{gid}", p.name, p.state, p.rate)
    };
    let words = ports.iter().map(one).collect::<Vec<_>>().join("; ");
    let is_off = |value: &EnvValue| value.given() == Some("1");
    let planned_off =
        host.machine.any(|d| d.process.env.get("NCCL_IB_DISABLE").is_some_and(is_off));
    if planned_off && ports.iter().any(|p| p.is_active()) {
        return fail(
            format!("NCCL_IB_DISABLE=1 of the plan keeps NCCL off it: {words}"),
            "remove NCCL_IB_DISABLE from env, unless Ethernet is what you want to measure",
        );
    }
    pass(words)
}

pub(super) fn proxy(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let facts = host.facts()?;
    let set: Vec<&str> = told(&facts.environment)?
        .iter()
        .map(String::as_str)
        .filter(|name| name.to_ascii_lowercase().ends_with("_proxy"))
        .collect();
    if set.is_empty() {
        return pass("no proxy is set");
    }
    let covers = |addr: &str| {
        addr.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
            || facts.no_proxy.split(',').any(|n| n.trim() == "*" || n.trim() == addr)
    };
    let bare: Vec<&str> =
        host.machine.hosts.iter().map(|h| h.addr.as_str()).filter(|a| !covers(a)).collect();
    if bare.is_empty() {
        return pass(format!("{} set; no_proxy names the data plane", set.join(", ")));
    }
    let bare = bare.join(",");
    fail(
        format!("{} set, and no_proxy does not name {bare}", set.join(", ")),
        format!("add {bare} to no_proxy: engines would send requests to the proxy"),
    )
}

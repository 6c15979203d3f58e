//! What is known of a host, read from what the probe printed.
//!
//! **Invariant:** each fact is there, or says why it is not. Nothing is guessed, and a line that is not
//! understood is passed over, never read as zero.

use super::nvidia::{self, Gpu, Matrix, Row};
use super::sections::{Known, Sections, Unknown};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) iface: String,
    pub(crate) addr: IpAddr,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) mtu: Option<u32>,
    pub(crate) speed_mbps: Option<u32>,
    pub(crate) state: String,
}

/// A TCP port that somebody listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
}

/// A port of an InfiniBand or RoCE card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IbPort {
    pub(crate) name: String,
    /// `4: ACTIVE`.
    pub(crate) state: String,
    /// `400 Gb/sec (4X NDR)`.
    pub(crate) rate: String,
    /// Type of the GID with index 3, as `RoCE v2`; empty where there is none.
    pub(crate) gid3: String,
}

impl IbPort {
    pub(crate) fn is_active(&self) -> bool {
        self.state.contains("ACTIVE")
    }
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) size_bytes: u64,
    pub(crate) free_bytes: u64,
}

/// A limit that may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Unlimited,
    Of(u64),
}

/// The model, as it lies on the host.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Its folder or file.
    pub(crate) place: Known<String>,
    pub(crate) config: Known<serde_json::Value>,
    /// SHA-256 by file name.
    pub(crate) hashes: Known<BTreeMap<String, String>>,
    pub(crate) weight_bytes: Known<u64>,
    /// Of its first weights, past the cache.
    pub(crate) read_bytes_per_s: Known<f64>,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Facts {
    /// What the name of the host resolves to, there.
    pub(crate) resolves: Known<Vec<IpAddr>>,
    pub(crate) addresses: Known<Vec<Address>>,
    pub(crate) links: Known<BTreeMap<String, Link>>,
    pub(crate) listeners: Known<Vec<Listener>>,
    /// Who listens on a port of the plan: `name (pid N)`.
    pub(crate) holders: BTreeMap<u16, String>,
    pub(crate) infiniband: Known<Vec<IbPort>>,
    /// Names of variables that are set.
    pub(crate) environment: Known<BTreeSet<String>>,
    pub(crate) no_proxy: String,
    pub(crate) open_files: Known<Limit>,
    pub(crate) locked_memory_kib: Known<Limit>,
    pub(crate) local_ports: Known<u64>,
    pub(crate) huge_pages: Known<(u64, u64)>,
    pub(crate) cgroup_memory_bytes: Known<Limit>,
    pub(crate) cpus: Known<u32>,
    pub(crate) shm: Known<Space>,
    pub(crate) disk: Known<Space>,
    /// Kind of file system of the model cache.
    pub(crate) disk_kind: Known<String>,
    pub(crate) programs: BTreeMap<String, Known<String>>,
    /// Versions of packages by program.
    pub(crate) versions: BTreeMap<String, Known<BTreeMap<String, String>>>,
    pub(crate) gpus: Known<Vec<Gpu>>,
    pub(crate) gpu_processes: Known<Vec<Row>>,
    pub(crate) gpu_throttle: Known<Vec<Row>>,
    pub(crate) gpu_fabric: Known<Vec<Row>>,
    pub(crate) topology: Known<Matrix>,
    pub(crate) p2p: Known<Matrix>,
    /// What PCI bridges are told of traffic between their devices, by bridge.
    pub(crate) acs: Known<BTreeMap<String, String>>,
    pub(crate) model: Model,
    /// Whether a connection gets to another host: `open`, `refused`, or what went wrong.
    pub(crate) peers: BTreeMap<String, Known<String>>,
    /// What the tools of clusters say, by section and what it is about; a failure is what they said.
    pub(crate) tools: BTreeMap<String, Known<String>>,
}

/// Sections of the tools of clusters of which there is one.
const TOOLS: [&str; 5] = ["slurm", "slurm_accounts", "modal", "modal_secrets", "modal_volumes"];
/// Those of which there is one for each cluster and namespace, or object in it.
const TOOLS_AT: [&str; 7] = [
    "kube_context",
    "kube_may",
    "kube_exec",
    "kube_kinds",
    "kube_gpus",
    "kube_quota",
    "kube_object",
];

impl Facts {
    /// Reads what the probe printed.
    pub(crate) fn read(output: &str) -> Self {
        let cut = Sections::cut(output);
        Self {
            resolves: cut.get("resolves").map(resolved),
            addresses: cut.get("addresses").map(addresses),
            links: cut.get("links").map(links),
            listeners: cut.get("listeners").map(listeners),
            holders: cut.of("holder").filter_map(holder).collect(),
            infiniband: cut.get("infiniband").map(infiniband),
            environment: cut.get("environment").map(words),
            no_proxy: cut.get("no_proxy").unwrap_or_default().trim().to_owned(),
            open_files: limit(&cut, "open_files"),
            locked_memory_kib: limit(&cut, "locked_memory"),
            local_ports: cut.get("port_range").and_then(local_ports),
            huge_pages: cut.get("memory").and_then(huge_pages),
            cgroup_memory_bytes: cut
                .get("cgroup_memory")
                .and_then(|t| as_limit(t, "cgroup memory")),
            cpus: cut.get("cpus").and_then(|t| parsed(t, "a number of CPUs")),
            shm: cut.get("shm").and_then(space),
            disk: cut.get("disk").and_then(space),
            disk_kind: cut.get("disk_kind").map(|t| t.trim().to_owned()),
            programs: cut.of("program").map(trimmed).collect(),
            versions: cut.of("versions").map(|(n, t)| (n.to_owned(), t.map(pairs))).collect(),
            gpus: cut.get("gpus").and_then(|text| nvidia::gpus(text, &more_of_gpus(&cut))),
            gpu_processes: cut.get("gpu_processes").and_then(|t| nvidia::table(t, "pid")),
            gpu_throttle: cut.get("gpu_throttle").and_then(|t| nvidia::table(t, "index")),
            gpu_fabric: cut.get("gpu_fabric").and_then(|t| nvidia::table(t, "index")),
            topology: cut.get("gpu_topology").and_then(Matrix::read),
            p2p: cut.get("gpu_p2p").and_then(Matrix::read),
            acs: cut.get("acs").map(bridges),
            model: model(&cut),
            peers: cut.of("peer").map(trimmed).collect(),
            tools: tools(&cut),
        }
    }

    /// A fact that a tool of a cluster tells: `slurm`, `kube_may KEY`.
    pub(crate) fn tool(&self, name: &str) -> Known<&str> {
        let never = || Unknown::because(format!("the host said nothing of '{name}'"));
        let said = self.tools.get(name).ok_or_else(never)?;
        said.as_deref().map_err(Clone::clone)
    }
}

/// Tables that not every driver has.
fn more_of_gpus(cut: &Sections) -> Vec<Row> {
    let tables = ["gpu_modes", "gpu_clocks"].map(|name| {
        let table = cut.get(name).and_then(|text| nvidia::table(text, "index"));
        table.unwrap_or_default()
    });
    tables.concat()
}

fn tools(cut: &Sections) -> BTreeMap<String, Known<String>> {
    let one = TOOLS.iter().map(|name| trimmed((name, cut.get(name))));
    let of = |kind: &&'static str| {
        let kind = *kind;
        cut.of(kind).map(trimmed).map(move |(key, said)| (format!("{kind} {key}"), said))
    };
    one.chain(TOOLS_AT.iter().flat_map(of)).collect()
}

fn trimmed((name, text): (&str, Known<&str>)) -> (String, Known<String>) {
    (name.to_owned(), text.map(|t| t.trim().to_owned()))
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> Known<T> {
    let text = text.trim();
    text.parse().map_err(|_| Unknown::because(format!("'{text}' is not {what}")))
}

/// Lines of a name and a value.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |l: &str| l.split_once(' ').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

/// First column of `getent ahosts`.
fn resolved(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for addr in text.lines().filter_map(|l| l.split_whitespace().next()?.parse().ok()) {
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    found
}

/// `2: eth0    inet 192.0.2.2/24 brd ...`, as `ip -o addr show` prints it.
fn addresses(text: &str) -> Vec<Address> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        // An interface in a pair is called `eth0@if7`.
        let iface = fields.next()?.split('@').next()?.to_owned();
        let family = fields.next()?;
        let addr = fields.next()?.split('/').next()?.parse().ok()?;
        family.starts_with("inet").then_some(Address { iface, addr })
    };
    text.lines().filter_map(address).collect()
}

/// `eth0 <tab> 1500 <tab> 100000 <tab> up`; the kernel says -1 for a speed that it does not know.
fn links(text: &str) -> BTreeMap<String, Link> {
    let link = |line: &str| {
        let mut cells = line.split('\t');
        let name = cells.next().filter(|n| !n.is_empty())?.to_owned();
        let mut number = || cells.next().and_then(|c| c.parse().ok());
        let (mtu, speed_mbps) = (number(), number());
        let state = cells.next().unwrap_or_default().to_owned();
        Some((name, Link { mtu, speed_mbps, state }))
    };
    text.lines().filter_map(link).collect()
}

/// Rows of `/proc/net/tcp` and `tcp6` in state `0A`.
fn listeners(text: &str) -> Vec<Listener> {
    let listener = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (addr, port) = fields.next()?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let is_listening = fields.nth(1)? == "0A";
        is_listening.then_some(Listener { addr: kernel_address(addr)?, port })
    };
    text.lines().filter_map(listener).collect()
}

/// The kernel writes addresses as words in the order of its CPU; all that we meet are little-endian.
fn kernel_address(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = hex
        .as_bytes()
        .chunks(8)
        .map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            u32::from_str_radix(word, 16).ok().map(u32::to_le_bytes)
        })
        .collect();
    let bytes = words?.concat();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    let v6 = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(v6).to_canonical())
}

fn holder((name, text): (&str, Known<&str>)) -> Option<(u16, String)> {
    Some((name.parse().ok()?, text.ok()?.trim().to_owned()))
}

fn infiniband(text: &str) -> Vec<IbPort> {
    let port = |line: &str| {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [device, port, state, rate, gid3] = cells.as_slice() else { return None };
        let own = |s: &str| s.to_owned();
        let name = format!("{device}/{port}");
        Some(IbPort { name, state: own(state), rate: own(rate), gid3: own(gid3) })
    };
    text.lines().filter_map(port).collect()
}

fn limit(cut: &Sections, name: &str) -> Known<Limit> {
    let found = pairs(cut.get("limits")?);
    let never = || Unknown::because(format!("the shell does not tell its limit of '{name}'"));
    as_limit(found.get(name).filter(|v| !v.is_empty()).ok_or_else(never)?, name)
}

/// No limit is a word, or in older control groups a number near the end of all numbers.
fn as_limit(text: &str, what: &str) -> Known<Limit> {
    const NONE: u64 = 1 << 60;
    match text.trim() {
        "unlimited" | "max" => Ok(Limit::Unlimited),
        text => match parsed(text, &format!("a limit of {what}"))? {
            NONE.. => Ok(Limit::Unlimited),
            limit => Ok(Limit::Of(limit)),
        },
    }
}

fn local_ports(text: &str) -> Known<u64> {
    let mut bounds = text.split_whitespace().filter_map(|w| w.parse::<u64>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if first <= last => Ok(last - first + 1),
        _ => Err(Unknown::because(format!("'{}' is no range of ports", text.trim()))),
    }
}

/// Free and all huge pages, of `/proc/meminfo`.
fn huge_pages(text: &str) -> Known<(u64, u64)> {
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        let never = || Unknown::because(format!("/proc/meminfo has no {key}"));
        parsed(line.ok_or_else(never)?, "a count of pages")
    };
    Ok((value("HugePages_Free")?, value("HugePages_Total")?))
}

/// `df -Pk`: the numbers are the second and fourth field of the last line.
fn space(text: &str) -> Known<Space> {
    let fields: Vec<&str> = text.lines().last().unwrap_or_default().split_whitespace().collect();
    let kib = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    match (kib(1), kib(3)) {
        (Some(size), Some(free)) => Ok(Space {
            size_bytes: size.saturating_mul(1024),
            free_bytes: free.saturating_mul(1024),
        }),
        _ => Err(Unknown::because("df gave no sizes")),
    }
}

fn model(cut: &Sections) -> Model {
    let config = cut.get("model_config").and_then(|text| {
        serde_json::from_str(text).map_err(|e| Unknown::because(format!("config.json: {e}")))
    });
    let weights = cut.get("model_weights").map(|t| t.lines().filter_map(first_number).sum());
    let hash = |l: &str| l.split_once(' ').map(|(hash, file)| (file.to_owned(), hash.to_owned()));
    let hashes = cut
        .get("model_hashes")
        .map(|text| text.lines().filter_map(hash).collect::<BTreeMap<String, String>>());
    let nothing = |what: &str| Unknown::because(format!("the model's folder has no {what}"));
    Model {
        place: cut.get("model").map(|t| t.trim().to_owned()),
        config,
        hashes: hashes.and_then(|h| if h.is_empty() { Err(nothing("config.json")) } else { Ok(h) }),
        read_bytes_per_s: cut.get("disk_read").and_then(read_speed),
        weight_bytes: weights.and_then(|n| if n == 0 { Err(nothing("weights")) } else { Ok(n) }),
    }
}

/// `00:01.0 <tab> SrcValid+ TransBlk- ReqRedir+ ..`.
fn bridges(text: &str) -> BTreeMap<String, String> {
    let bridge = |l: &str| l.split_once('\t').map(|(b, ctl)| (b.to_owned(), ctl.trim().to_owned()));
    text.lines().filter_map(bridge).collect()
}

/// `268435456 bytes (268 MB, 256 MiB) copied, 0.123 s, 2.2 GB/s`; not all kinds of dd say the speed.
fn read_speed(text: &str) -> Known<f64> {
    let line = text.lines().find(|l| l.contains(" copied, "));
    let bytes = line.and_then(first_number);
    let seconds = line.and_then(|l| {
        let (_, rest) = l.split_once(" copied, ")?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    });
    let unread = || Unknown::because(format!("dd said: {}", text.trim()));
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let speed = |(bytes, seconds): (u64, f64)| (seconds > 0.0).then(|| bytes as f64 / seconds);
    bytes.zip(seconds).and_then(speed).ok_or_else(unread)
}

fn first_number(line: &str) -> Option<u64> {
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{PROC_TCP, healthy};

    #[test]
    fn listeners_are_read_from_both_tables_of_the_kernel() {
        let found = listeners(PROC_TCP);
        let at = |addr: &str, port| Listener { addr: addr.parse().unwrap(), port };
        assert_eq!(found, [at("127.0.0.1", 8080), at("0.0.0.0", 22), at("::", 22), at("::1", 631)]);
    }

    #[test]
    fn a_healthy_host_is_read_whole() {
        let facts = Facts::read(&healthy());
        assert_eq!(facts.addresses.unwrap().len(), 2);
        assert_eq!(facts.links.as_ref().unwrap()["eno1"].speed_mbps, Some(100_000));
        assert_eq!(facts.links.unwrap()["lo"].speed_mbps, None);
        assert_eq!(facts.open_files, Ok(Limit::Of(1_048_576)));
        assert_eq!(facts.locked_memory_kib, Ok(Limit::Unlimited));
        assert_eq!(facts.local_ports, Ok(28_232));
        assert_eq!(facts.huge_pages, Ok((0, 0)));
        assert_eq!(facts.shm.unwrap().size_bytes, 64 << 30);
        assert_eq!(facts.gpus.unwrap().len(), 4);
        assert_eq!(facts.model.weight_bytes, Ok(65_536_000_000));
        assert_eq!(facts.model.read_bytes_per_s, Ok(2_097_152_000.0));
        assert!(facts.acs.unwrap()["00:01.0"].contains("ReqRedir-"));
        assert_eq!(facts.model.hashes.unwrap()["config.json"], "aa11");
        assert_eq!(facts.versions["vllm"].as_ref().unwrap()["python"], "3.12.3");
    }

    #[test]
    fn a_host_that_says_nothing_has_no_facts_but_reasons() {
        let facts = Facts::read("");
        assert!(facts.gpus.is_err() && facts.listeners.is_err() && facts.shm.is_err());
        assert!(facts.model.place.is_err() && facts.open_files.is_err() && facts.cpus.is_err());
    }

    #[test]
    fn nonsense_is_not_read_as_zero() {
        let facts = Facts::read(
            "@@ cpus\nmany\n@@ port_range\n9 3\n@@ shm\nFilesystem\n@@ limits\nopen_files\nlocked_memory x\n@@ listeners\nx y z\n@@ links\neth0\t\t-1\tup\n",
        );
        assert!(facts.cpus.is_err() && facts.local_ports.is_err() && facts.shm.is_err());
        assert!(facts.open_files.is_err() && facts.locked_memory_kib.is_err());
        assert_eq!(facts.listeners, Ok(Vec::new()));
        let link = &facts.links.unwrap()["eth0"];
        assert_eq!((link.mtu, link.speed_mbps), (None, None));
    }
}

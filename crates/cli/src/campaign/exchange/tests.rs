//! Of which links a claim is made, and of which none.

use super::*;
use crate::experiment;
use scalebeam_model::fingerprint::{Fact, ProcessPrint};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = r#"
schema = 1
name = "links"
model = { id = "meta-llama/Llama-3.1-8B-Instruct" }

[host.a]
ssh = "a"
addr = "10.0.0.1"
gpus = 4
gpu = "H100"

[host.b]
ssh = "b"
addr = "10.0.0.2"
gpus = 4
gpu = "H100"

[[deploy]]
name = "two"
platform = "ssh"
engine = "vllm"
launcher = "mp"
place = ["a:0-3 + b:0-3"]
tp = 8

[[workload]]
name = "w"
kind = "prompts"
prompts = [{ id = "a", max_tokens = 8, text = "Say it." }]

[[load]]
name = "l"
workload = "w"
concurrency = [1]
requests = 1
"#;

/// What is known of the two hosts: speeds of their interfaces and ports of InfiniBand; `transport` of the log.
struct Seen {
    gbps: [Option<u32>; 2],
    ports: [Option<&'static str>; 2],
    transport: Option<&'static str>,
    /// In Mbit/s.
    paths: Vec<(&'static str, &'static str, u64)>,
}

const ETHERNET: Seen =
    Seen { gbps: [Some(100), Some(25)], ports: [None; 2], transport: None, paths: Vec::new() };

fn host(name: &str, gbps: Option<u32>, port: Option<&str>) -> HostPrint {
    let link = LinkPrint {
        driver: None,
        state: "up".to_owned(),
        mtu_bytes: None,
        speed_mbps: gbps.map(|gbps| gbps * 1000),
    };
    let ports = port.map(|rate| ("mlx5_0/1".to_owned(), format!("4: ACTIVE, {rate} Gb/sec")));
    HostPrint {
        host: name.to_owned(),
        kernel: Fact::absent("no test of it"),
        system: Fact::absent("no test of it"),
        cpu: Fact::absent("no test of it"),
        cpus: Fact::absent("no test of it"),
        memory_bytes: Fact::absent("no test of it"),
        cuda: Fact::absent("no test of it"),
        gpus: Fact::absent("no test of it"),
        links: Fact::Known(BTreeMap::from([("eth0".to_owned(), link)])),
        infiniband: Fact::Known(ports.into_iter().collect()),
        packages: BTreeMap::new(),
        model_hashes: Fact::absent("no test of it"),
    }
}

fn rank(transport: Option<&str>) -> ProcessPrint {
    let said = transport.map(|said| Fact::Known(LogValue::Text(said.to_owned())));
    ProcessPrint {
        process: "two-agg-0-rank0".to_owned(),
        host: "a".to_owned(),
        command: Fact::absent("no test of it"),
        env_names: Fact::absent("no test of it"),
        log: said.map(|said| ("nccl_transport".to_owned(), said)).into_iter().collect(),
    }
}

/// The links of the claim that is made of `file` where this was seen.
fn of_file(file: &str, seen: &Seen) -> Option<String> {
    let plan = experiment::from_text(file.to_owned(), "links.toml", PathBuf::new()).unwrap().plan;
    let hosts =
        [("a", 0), ("b", 1)].map(|(name, i)| host(name, seen.gbps[i], seen.ports[i])).to_vec();
    let print = Fingerprint {
        deployments: vec![DeploymentPrint {
            deployment: "two".to_owned(),
            session: 0,
            hosts,
            processes: vec![rank(seen.transport)],
            entries: Vec::new(),
        }],
        ..Fingerprint::default()
    };
    let path = |(from, to, mbps): &(&str, &str, u64)| MeasuredPath {
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        bytes_per_s: mbps * 125_000,
    };
    let paths: Vec<MeasuredPath> = seen.paths.iter().map(path).collect();
    all(&plan, &print, &paths).first().map(|of| of.over.clone())
}

fn of(seen: &Seen) -> Option<String> {
    of_file(FILE, seen)
}

const BY_TCP: Option<&str> =
    Some("2 all-reduces a layer over 8 ranks on 2 nodes of 25 Gbit/s by TCP");

#[test]
fn the_slower_of_two_interfaces_is_the_link_where_all_is_known() {
    assert_eq!(of(&ETHERNET).as_deref(), BY_TCP);
    let told = Seen { transport: Some("NET/Socket/0"), ports: [Some("400"), None], ..ETHERNET };
    assert_eq!(of(&told).as_deref(), BY_TCP, "a port that was not used is no other link");
    assert_eq!(of(&Seen { gbps: [Some(100), None], ..ETHERNET }), None, "half of it is not known");
}

#[test]
fn a_transport_that_is_no_socket_is_not_taken_for_one() {
    for transport in ["NET/Libfabric/0", "NET/GPUDirectTCPX_v7/0", "NVLS"] {
        assert_eq!(of(&Seen { transport: Some(transport), ..ETHERNET }), None, "{transport}");
    }
    // With such a port it may have been used.
    assert_eq!(of(&Seen { ports: [Some("400"), None], ..ETHERNET }), None);
}

#[test]
fn infiniband_is_as_fast_as_the_ports_of_the_host_that_has_least() {
    let ports = Seen { transport: Some("NET/IB/0"), ports: [Some("400"), Some("200")], ..ETHERNET };
    let by_rdma = "2 all-reduces a layer over 8 ranks on 2 nodes of 200 Gbit/s by RDMA";
    assert_eq!(of(&ports).as_deref(), Some(by_rdma));
    assert_eq!(of(&Seen { ports: [Some("400"), None], ..ports }), None, "one of them has none");
}

#[test]
fn a_path_refutes_an_interface_and_takes_nothing_from_its_speed() {
    // One socket fills no link.
    let half = Seen { paths: vec![("a", "b", 12_000), ("b", "a", 23_000)], ..ETHERNET };
    assert_eq!(of(&half).as_deref(), BY_TCP);
    let another = Seen { paths: vec![("a", "b", 23_000), ("b", "a", 900)], ..ETHERNET };
    assert_eq!(of(&another), None);
    let faster = Seen { paths: vec![("a", "b", 38_000)], ..ETHERNET };
    assert_eq!(of(&faster), None, "no socket is faster than its link");
    let of_others = Seen { paths: vec![("a", "c", 900)], ..ETHERNET };
    assert_eq!(of(&of_others).as_deref(), BY_TCP);
}

#[test]
fn experts_over_ranks_are_no_part_of_the_model() {
    let experts = FILE.replace("tp = 8\n", "tp = 8\nep = 8\n");
    assert_ne!(experts, FILE);
    assert_eq!(of_file(&experts, &ETHERNET), None);
}

//! Processes that are started after something is there.

use crate::bench::{Bench, free_port, plan, process};
use scalebeam_fleet::FleetError;
use scalebeam_model::plan::{DeploymentPlan, GateKind, PortPlan, ProcessPlan, RayNode, StartGate};
use scalebeam_model::units::Nanos;

/// Listens on a port after a while.
const SLOW: &str = "import socket,sys,time\nprint('thinking', flush=True)\ntime.sleep(float(sys.argv[2]))\n\
                    s=socket.create_server(('127.0.0.1',int(sys.argv[1])))\ntime.sleep(600)\n";

fn slow(bench: &Bench, port: u16, after_s: &str) -> ProcessPlan {
    let script = bench.script("slow.py", SLOW);
    let mut head =
        process("d/0/head", crate::bench::PYTHON, &[&script, &port.to_string(), after_s]);
    head.ports.push(PortPlan { name: "head".into(), addr: "127.0.0.1".into(), port });
    head
}

fn is_started(bench: &Bench, id: &str) -> bool {
    let is_it = |p: &scalebeam_fleet::journal::Intent| p.process == id;
    bench.events().iter().any(
        |e| matches!(e, scalebeam_fleet::journal::Event::ProcessIntent(intent) if is_it(intent)),
    )
}

#[tokio::test]
async fn a_process_is_started_once_somebody_listens() {
    let bench = Bench::new();
    let port = free_port();
    // It fails where nobody listens yet.
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && sleep 600");
    let mut second = process("d/0/rank1", "/bin/bash", &["-c", &connect]);
    second.after = Some(StartGate::Listening { host: "box".into(), port });
    let running = bench.up(&plan(vec![slow(&bench, port, "1.5"), second])).await.unwrap();
    let said = bench.said.lock().unwrap().join("\n");
    let waits = format!(
        "d/0/rank1 waits for port {port} of host box: nobody listens yet (last log line: thinking)"
    );
    assert!(said.contains(&waits), "{said}");
    assert!(running.take_down(Nanos::from_secs(5)).await.is_clean());
}

/// A `ray` that gives this status, two raylets of it, and a server that waits for the cluster.
fn cluster(bench: &Bench, status: &str) -> DeploymentPlan {
    use std::os::unix::fs::PermissionsExt;
    let start = "echo looking for the head; exec sleep 600";
    let script =
        format!("#!/bin/sh\n[ \"$1\" = status ] || {{ {start}; }}\nprintf '%s\\n' '{status}'\n");
    let ray = bench.script("ray", &script);
    std::fs::set_permissions(&ray, std::fs::Permissions::from_mode(0o755)).unwrap();
    let raylet = |id: &str, host: &str| {
        let mut raylet = process(id, &ray, &["start"]);
        raylet.host = host.into();
        raylet
    };
    let (head, worker) = (raylet("d/0/ray0", "head"), raylet("d/0/ray1", "worker"));
    let node =
        |host: &str| RayNode { host: host.into(), resource: format!("scalebeam:{host}"), gpus: 2 };
    let mut serve = process("d/0/serve", "/bin/sh", &["-c", "sleep 600"]);
    serve.after = Some(StartGate::RayCluster {
        ray,
        head: "head".into(),
        address: "127.0.0.1:6379".into(),
        nodes: vec![node("head"), node("worker")],
    });
    let mut plan = plan(vec![head, worker, serve]);
    plan.ready.timeout = Nanos::from_millis(2500);
    plan
}

#[tokio::test]
async fn a_server_is_not_started_before_its_ray_cluster_is_whole() {
    let bench = Bench::new();
    let error =
        bench.up(&cluster(&bench, " 0.0/2.0 GPU\n 0.0/1.0 scalebeam:head")).await.unwrap_err();
    assert!(matches!(error, FleetError::NotReady { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("d/0/serve waits for the Ray cluster at 127.0.0.1:6379"), "{text}");
    let absent = "host worker has not joined (last log line: looking for the head)";
    assert!(text.contains(absent), "{text}");
    assert!(!is_started(&bench, "d/0/serve"));
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn a_start_may_have_a_time_of_its_own() {
    let bench = Bench::new();
    let mut plan = cluster(&bench, " 0.0/2.0 GPU\n 0.0/1.0 scalebeam:head");
    plan.ready.timeout = Nanos::from_secs(30);
    plan.ready.within.insert(GateKind::Start, Nanos::from_millis(2500));
    let text = bench.up(&plan).await.unwrap_err().to_string();
    let begins = "deployment 'd' did not pass gate 'start' within 2.50 s: d/0/serve waits for ";
    assert!(text.starts_with(begins), "{text}");
    assert!(text.contains("host worker has not joined"), "{text}");
    assert!(!is_started(&bench, "d/0/serve"));
}

#[tokio::test]
async fn too_few_gpus_are_counted_and_a_whole_cluster_lets_it_start() {
    let bench = Bench::new();
    let joined = " 0.0/1.0 scalebeam:head\n 0.0/1.0 scalebeam:worker";
    let few = bench.up(&cluster(&bench, &format!(" 0.0/3.0 GPU\n{joined}"))).await.unwrap_err();
    assert!(few.to_string().contains("it has 3 of 4 GPUs"), "{few}");
    let running = bench.up(&cluster(&bench, &format!(" 1.0/4.0 GPU\n{joined}"))).await.unwrap();
    assert!(is_started(&bench, "d/0/serve"));
    assert!(running.take_down(Nanos::from_secs(5)).await.is_clean());
}

#[tokio::test]
async fn a_process_that_ends_while_another_waits_for_it_is_the_error() {
    let bench = Bench::new();
    let port = free_port();
    let mut second = process("d/0/rank1", "/bin/sh", &["-c", "sleep 600"]);
    second.after = Some(StartGate::Listening { host: "box".into(), port });
    let head = process("d/0/head", "/bin/sh", &["-c", "echo no session; sleep 0.5; exit 3"]);
    let error = bench.up(&plan(vec![head, second])).await.unwrap_err();
    assert!(matches!(error, FleetError::Exited(_)), "{error}");
    assert!(error.to_string().contains("no session"), "{error}");
    assert!(!is_started(&bench, "d/0/rank1"));
}

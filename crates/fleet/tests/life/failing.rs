//! Deployments that do not come up: what is said, and that nothing is left.

use crate::bench::{Bench, plan, process, servers};
use scalebeam_fleet::FleetError;
use scalebeam_model::plan::{EntryPlan, Gate, GateKind, PortPlan};
use scalebeam_model::units::Nanos;

#[tokio::test]
async fn a_crash_at_start_shows_the_log_and_a_hint() {
    let bench = Bench::new();
    let script = "for i in $(seq 30); do echo line $i; done; echo 'torch.OutOfMemoryError: CUDA out of memory.'; exit 7";
    let mut plan = servers(&bench, 1);
    plan.processes.push(process("d/1/serve", "/bin/sh", &["-c", script]));
    let error = bench.up(&plan).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("d/1/serve on host box") && text.contains("status 7"), "{text}");
    assert!(text.contains("line 30") && text.contains("CUDA out of memory"), "{text}");
    assert!(!text.contains("line 16\n"), "only the last fifteen lines: {text}");
    assert!(error.hint().unwrap().contains("raise tp"), "{error}");
    let states = bench.states();
    assert!(
        states.contains(&"failed".to_owned()) && states.last().unwrap() == "gone",
        "{states:?}"
    );
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn a_hang_names_the_process_and_its_last_line() {
    let bench = Bench::new();
    let script = "echo Loading weights 3/7; sleep 600";
    let mut plan = plan(vec![process("d/0/serve", "/bin/sh", &["-c", script])]);
    let port = crate::bench::free_port();
    plan.entries.push(EntryPlan { url: format!("http://127.0.0.1:{port}"), instance: Some(0) });
    plan.ready.gates.push(Gate::Http { path: "/health".into() });
    plan.ready.timeout = Nanos::from_millis(1500);
    let error = bench.up(&plan).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FleetError::NotReady { .. }), "{text}");
    assert!(text.contains("waiting for /health at http://127.0.0.1"), "{text}");
    assert!(text.contains("d/0/serve on host box: loading weights 42 %, silent for "), "{text}");
    assert!(bench.said.lock().unwrap().iter().any(|s| s.contains("; box: loading weights 42 %")));
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn a_gate_that_takes_longer_than_its_own_time_names_itself_and_who_hangs() {
    let bench = Bench::new();
    let script = "echo Loading weights 3/7; sleep 600";
    let mut plan = plan(vec![process("d/0/serve", "/bin/sh", &["-c", script])]);
    let port = crate::bench::free_port();
    plan.entries.push(EntryPlan { url: format!("http://127.0.0.1:{port}"), instance: Some(0) });
    plan.ready.gates.push(Gate::Http { path: "/health".into() });
    plan.ready.within.insert(GateKind::Health, Nanos::from_millis(1500));
    plan.ready.within.insert(GateKind::Completion, Nanos::from_millis(1));
    let error = bench.up(&plan).await.unwrap_err();
    let text = error.to_string();
    let begins = "deployment 'd' did not pass gate 'health' within 1.50 s: waiting for /health at ";
    assert!(text.starts_with(begins), "{text}");
    assert!(text.contains("d/0/serve on host box: loading weights 42 %, silent for "), "{text}");
    assert!(text.contains("last log line: Loading weights 3/7 ("), "{text}");
    assert!(error.hint().unwrap().contains("within = { health = "), "{error}");
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

#[tokio::test]
async fn a_question_that_is_not_answered_in_its_gate_s_time_is_told() {
    let bench = Bench::new();
    let mut plan = servers(&bench, 1);
    let silent = "import socket,sys,time\ns=socket.create_server(('127.0.0.1',int(sys.argv[1])))\n\
                  print('thinking', flush=True)\ntime.sleep(600)\n";
    plan.processes[0].args[0] = bench.script("silent.py", silent);
    plan.ready.within.insert(GateKind::Health, Nanos::from_secs(2));
    let text = bench.up(&plan).await.unwrap_err().to_string();
    assert!(text.contains("within 2.00 s: waiting for /health at http://127.0.0.1"), "{text}");
    assert!(text.contains("/health: no answer yet") || text.contains("refused"), "{text}");
    assert!(text.contains("last log line: thinking"), "{text}");
}

#[tokio::test]
async fn the_rank_that_hangs_is_named_first_with_its_silence() {
    let bench = Bench::new();
    let loads = "while :; do echo 'Loading safetensors checkpoint shards:  40% Completed | 2/5'; sleep 0.2; done";
    let hangs = "echo 'node1:9:9 [0] NCCL INFO Bootstrap: Using eno1'; sleep 600";
    let mut plan = plan(vec![
        process("d/0/rank0", "/bin/sh", &["-c", loads]),
        process("d/0/rank1", "/bin/sh", &["-c", hangs]),
    ]);
    let port = crate::bench::free_port();
    plan.entries.push(EntryPlan { url: format!("http://127.0.0.1:{port}"), instance: Some(0) });
    plan.ready.gates.push(Gate::Http { path: "/health".into() });
    plan.ready.timeout = Nanos::from_secs(4);
    let error = bench.up(&plan).await.unwrap_err();
    let text = error.to_string();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    let silent = at("d/0/rank1 on host box: joining ranks, silent for ");
    assert!(silent < at("d/0/rank0 on host box: loading weights 40 %, silent for "), "{text}");
    assert!(text.contains("last log line: node1:9:9 [0] NCCL INFO Bootstrap"), "{text}");
    let said = bench.said.lock().unwrap();
    let both = "; box: joining ranks, loading weights 40 %";
    assert!(said.iter().any(|s| s.contains(both)), "{said:?}");
}

#[tokio::test]
async fn a_page_for_people_is_not_an_engine() {
    let bench = Bench::new();
    let script = bench.script(
        "page.py",
        "import http.server,sys\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(s):\n    s.send_response(200); s.send_header('Content-Type','text/html'); s.end_headers(); s.wfile.write(b'<html>hi</html>')\nhttp.server.HTTPServer(('127.0.0.1',int(sys.argv[1])),H).serve_forever()\n",
    );
    let mut plan = servers(&bench, 1);
    plan.processes[0].args[0] = script;
    let error = bench.up(&plan).await.unwrap_err();
    assert!(matches!(error, FleetError::WrongAnswer { .. }), "{error}");
    assert!(error.to_string().contains("text/html"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_an_error_before_anything_starts() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut one = process("d/0/serve", "/bin/sh", &["-c", "sleep 60"]);
    one.ports.push(PortPlan { name: "http".into(), addr: "127.0.0.1".into(), port });
    let error = bench.up(&plan(vec![one])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("port {port} on 127.0.0.1")), "{text}");
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    assert!(
        !bench
            .events()
            .iter()
            .any(|e| matches!(e, scalebeam_fleet::journal::Event::ProcessIntent(_)))
    );
}

#[tokio::test]
async fn a_missing_program_is_an_error_before_anything_starts() {
    let bench = Bench::new();
    let error =
        bench.up(&plan(vec![process("d/0/serve", "no-such-engine", &[])])).await.unwrap_err();
    assert!(matches!(error, FleetError::ProgramMissing { .. }), "{error}");
    let error = bench.up(&plan(vec![process("d/0/serve", "llama-server", &[])])).await.unwrap_err();
    assert!(error.hint().unwrap().contains("scalebeam setup llama.cpp"), "{error}");
}

#[tokio::test]
async fn an_interrupt_takes_everything_down() {
    let bench = Bench::new();
    let mut plan = servers(&bench, 1);
    plan.ready.gates.push(Gate::Http { path: "/v1/models/never".into() });
    plan.processes.push(process("d/1/serve", "/bin/sh", &["-c", "sleep 600"]));
    plan.entries.push(EntryPlan { url: "http://127.0.0.1:9".into(), instance: Some(1) });
    let stop = async {
        let seen =
            || bench.said.lock().unwrap().iter().any(|s| s.contains("127.0.0.1:9")).then_some(());
        crate::bench::eventually(seen).await;
        bench.cancel.send(scalebeam_fleet::Stop::Orderly).unwrap();
    };
    let (outcome, ()) = tokio::join!(bench.up(&plan), stop);
    assert!(matches!(outcome.unwrap_err(), FleetError::Cancelled { .. }));
    assert_eq!(scalebeam_fleet::leftovers(bench.dir.path()).await.unwrap(), []);
}

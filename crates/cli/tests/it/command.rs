//! Programs that the file names, started as it says: the truth server, and whatever fails.

use crate::support::{Lab, free_port, json_lines, marked_processes, root};
use std::net::TcpListener;

const LOAD: &str = "mode = \"closed\"\nconcurrency = 4\nrequests = 40\nwarmup = 4\n";

/// An experiment with one deployment of the truth server: `more` are keys of it, `args` arguments behind
/// its own, quoted.
fn experiment(port: u16, args: &str, more: &str) -> Lab {
    let script = root().join("tests-support/truth_server.py");
    Lab::new(&format!(
        "schema = 1\nname = \"own\"\n[model]\nid = \"plain\"\n\
         [[deploy]]\nname = \"mine\"\nplatform = \"local\"\nengine = \"command\"\nport = {port}\n\
         args = [\"-B\", \"{}\", \"--host={{host}}\", \"--port\", \"{{port}}\", \"--ttft-ms\", \"5\", \"--itl-ms\", \"1\"{args}]\n\
         params = {{ program = \"python3\" }}\nstop = {{ grace = \"5s\" }}\n{more}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nforce_len = true\nseed = 1\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\n{LOAD}\n",
        script.display()
    ))
}

#[test]
fn two_replicas_have_ports_of_their_own_are_weighed_and_leave_nothing() {
    let port = free_port();
    let more = "replicas = 2\nbalance = \"round-robin\"\nready = { timeout = \"60s\", health = \"/health\" }\n\
                env = { MINE = \"{model}-{index} at {host}:{port}\" }";
    // Each replica has a file of its own in the directory that is removed with the deployment.
    let log = ", \"--log\", \"{scratch}/served-{index}.jsonl\"";
    let lab = experiment(port, log, more);
    let plan = lab.say("plan", &["--json"]).expect_code(0).json();
    let processes = &plan["deployments"][0]["processes"];
    for (n, at) in [(0, port), (1, port + 1)] {
        assert_eq!(processes[n]["ports"][0]["port"], at, "{processes:#}");
        assert_eq!(processes[n]["args"][4], at.to_string(), "{processes:#}");
        assert_eq!(processes[n]["env"]["MINE"], format!("plain-{n} at 127.0.0.1:{at}"));
    }

    let results = lab.say("run", &["--json"]).expect_code(0).json();
    let point = &results["points"][0];
    assert_eq!(point["outcomes"]["completed"], 40, "{point:#}");
    assert_eq!(point["by_target"], serde_json::json!([20, 20]), "{point:#}");
    assert_eq!(point["metrics"]["output_tokens"]["min"], 8.0, "{point:#}");
    assert_eq!(marked_processes(&lab.runs()), []);
    for at in [port, port + 1] {
        TcpListener::bind(("127.0.0.1", at)).unwrap();
    }
    let journal = json_lines(&lab.run_dir().join("journal.jsonl"));
    let released = journal.iter().filter(|e| e.to_string().contains("port_released")).count();
    assert_eq!(released, 2);
}

/// No health path, no list of models: a line of the log says that it serves, and the first answer proves it.
#[test]
fn a_server_with_no_path_beside_its_api_is_ready_by_its_log() {
    let ready = "ready = { timeout = \"60s\", log = \"listening \", models = false }";
    let lab = experiment(free_port(), ", \"--bare\"", ready);
    let plan = lab.say("plan", &[]).expect_code(0).stdout;
    assert!(plan.contains("'listening ' in the log of each instance"), "{plan}");
    assert!(!plan.contains("listed") && !plan.contains("GET /"), "{plan}");
    let results = lab.say("run", &["--json"]).expect_code(0).json();
    assert_eq!(results["points"][0]["outcomes"]["completed"], 40);
    assert_eq!(marked_processes(&lab.runs()), []);

    // What it does not have is named, with the key that does without.
    for (ready, key) in [
        ("ready = { timeout = \"60s\" }", "ready = { models = false }"),
        ("ready = { timeout = \"60s\", health = \"/health\" }", "ready = { health = \"/path\" }"),
    ] {
        let lab = experiment(free_port(), ", \"--bare\"", ready);
        let said = lab.say("run", &[]).expect_code(4).stderr;
        assert!(said.contains("gave HTTP 404") && said.contains(key), "{said}");
        assert_eq!(marked_processes(&lab.runs()), []);
    }
}

#[test]
fn a_line_that_never_comes_is_told_with_what_came_instead() {
    let ready = "ready = { timeout = \"2s\", log = \"startup complete\" }";
    let lab = experiment(free_port(), "", ready);
    let said = lab.say("run", &[]).expect_code(4).stderr;
    assert!(said.contains("waiting for 'startup complete' in the log of mine/0"), "{said}");
    assert!(said.contains("listening "), "{said}");
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn a_program_that_dies_is_named_with_the_end_of_its_log() {
    let lab = experiment(free_port(), ", \"--no-such-flag\"", "");
    let said = lab.say("run", &[]).expect_code(4).stderr;
    assert!(said.contains("mine/0/serve"), "{said}");
    assert!(said.contains("ended with status 2"), "{said}");
    assert!(said.contains("unrecognized arguments: --no-such-flag"), "{said}");
    assert!(said.contains("remove it from args"), "{said}");
    assert_eq!(marked_processes(&lab.runs()), []);
}

/// After it was found to be ready and before the load: what is asked then is not the news.
#[test]
fn a_program_that_dies_before_the_load_is_named_and_not_the_question_that_it_left_open() {
    let lab = experiment(free_port(), ", \"--dies-after\", \"1\"", "");
    let said = lab.say("run", &["--no-doctor"]).expect_code(4).stderr;
    for part in ["ready after", "mine/0/serve on host localhost", "ended with status 1", "hint:"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("fatal: the engine core died"), "{said}");
    assert_eq!(marked_processes(&lab.runs()), []);
}

#[test]
fn a_port_that_is_taken_and_a_program_that_is_not_there_stop_before_anything_starts() {
    let port = free_port();
    let lab = experiment(port, "", "replicas = 2");
    let holder = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    for more in [&[][..], &["--no-doctor"]] {
        let said = lab.say("run", more).expect_code(4).stderr;
        assert!(said.contains("mine/1/serve") || said.contains("D12"), "{said}");
        assert!(said.contains(&(port + 1).to_string()), "{said}");
        assert_eq!(marked_processes(&lab.runs()), []);
    }
    drop(holder);
    let text = std::fs::read_to_string(lab.file()).unwrap();
    std::fs::write(lab.file(), text.replace("\"python3\"", "\"no-such-program\"")).unwrap();
    let said = lab.say("run", &["--no-doctor"]).expect_code(4).stderr;
    assert!(said.contains("no-such-program") && said.contains("whole path in params"), "{said}");
}

#[test]
fn what_cannot_be_started_or_waited_for_is_refused_with_its_key() {
    for (args, more, words) in [
        (", \"{prot}\"", "", &["'{prot}'", "{port}, {host}"][..]),
        ("", "env = { PORT = \"{prot}\" }", &["'{prot}'"]),
        ("", "ready = { health = \"health\" }", &["ready.health", "not a path"]),
        ("", "ready = { log = \"\" }", &["ready.log"]),
        ("", "place = [\"a + b\"]\n[host.a]\n[host.b]", &["does not span hosts"]),
    ] {
        let said = experiment(free_port(), args, more).say("check", &[]).expect_code(2).stderr;
        for word in words {
            assert!(said.contains(word), "{more}: {said}");
        }
    }
    let lab = experiment(free_port(), "", "");
    let text = std::fs::read_to_string(lab.file()).unwrap();
    std::fs::write(lab.file(), text.replace("program = \"python3\"", "")).unwrap();
    let said = lab.say("check", &[]).expect_code(2).stderr;
    assert!(said.contains("params = { program"), "{said}");
}

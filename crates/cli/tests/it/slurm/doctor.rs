//! What the doctor finds on the nodes of a job, before anything of the deployment is started there.

use super::{Cluster, Disk, FAST, LOAD};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn findings(cluster: &Cluster) -> Vec<Value> {
    let text = std::fs::read_to_string(cluster.run_dir().join("doctor.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    report["findings"].as_array().unwrap().clone()
}

/// Findings of `id` on `host`.
fn of<'f>(findings: &'f [Value], id: &str, host: &str) -> Vec<&'f Value> {
    findings.iter().filter(|f| f["id"] == id && f["host"] == host).collect()
}

/// Writes a program `name` that leaves a mark where it is started.
fn program(cluster: &Cluster, name: &str) -> String {
    let path = cluster.path("bin").join(name);
    let mark = cluster.path("started").display().to_string();
    std::fs::write(&path, format!("#!/bin/sh\necho started >>{mark}\nexit 3\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn append(file: &str, text: &str) {
    let whole = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{whole}{text}")).unwrap();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_the_doctor_looks_at_every_node_before_anything_is_started() {
    let cluster = Cluster::new();
    let said = cluster.run(&cluster.pair(FAST, LOAD), &["--json"]).expect_code(0);
    assert!(said.stderr.contains("pair: doctor on its nodes: 0 failed, "), "{}", said.stderr);
    let findings = findings(&cluster);
    for node in ["n1", "n2"] {
        let reached = of(&findings, "D10", node);
        assert_eq!(reached[0]["seen"], format!("srun on {node}"), "{reached:#?}");
        assert_eq!(of(&findings, "D12", node)[0]["status"], "pass", "ports");
        assert_eq!(of(&findings, "D31", node)[0]["status"], "pass", "programs");
        // They have this machine's clock.
        assert_eq!(of(&findings, "D42", node)[0]["status"], "pass", "clock");
    }
    assert!(findings.iter().all(|f| f["deployment"] == "pair"), "{findings:#?}");
    let partition = findings.iter().find(|f| f["id"] == "D61").unwrap();
    assert_eq!(partition["reason"], "the platform has given it its machines");
    let log = std::fs::read_to_string(cluster.run_dir().join("logs/pair/job-1.out")).unwrap();
    assert!(log.contains("held: all"), "{log}");
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_node_without_the_program_is_told_and_the_others_are_still_weighed() {
    let cluster = Cluster::with(Disk::Bare);
    let bin = program(&cluster, "vllm");
    let deploy = format!(
        "engine = \"vllm\"\nreplicas = 2\nplace = [\"n1:0\", \"n2:0\"]\nparams = {{ bin = \"{bin}\" }}"
    );
    let file = cluster.experiment(&deploy, LOAD);
    append(
        &file,
        &format!(
            "[[deploy]]\nname = \"whole\"\nplatform = \"slurm\"\nengine = \"emulated\"\n\
             place = [\"n1:0\"]\nparams = {{ {FAST} }}\nstop = {{ grace = \"5s\" }}\n"
        ),
    );
    let said = cluster.run(&file, &["--json"]).expect_code(4);
    let stderr = &said.stderr;
    for want in [
        "nothing of it was started; it could not work on its nodes".to_owned(),
        format!("D31 host n2: programs are installed: not found: {bin}"),
        "pip install vllm; or name its path in params".to_owned(),
        "hint: all findings are in doctor.json of the run".to_owned(),
    ] {
        assert!(stderr.contains(&want), "{want}\n{stderr}");
    }
    assert!(!cluster.path("started").exists(), "nothing was started on n1 either");
    assert_eq!(said.json()["points"][0]["outcomes"]["completed"], 80);
    let findings = findings(&cluster);
    assert_eq!(of(&findings, "D31", "n1")[0]["seen"], bin);
    let of_whole = findings.iter().filter(|f| f["deployment"] == "whole").count();
    assert!(of_whole > 30, "{of_whole}");
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_programs_are_looked_for_where_the_setup_of_the_job_puts_them() {
    let cluster = Cluster::with(Disk::Apart);
    let bin = program(&cluster, "vllm");
    let folder = Path::new(&bin).with_file_name("").display().to_string();
    let elsewhere = cluster.path("programs");
    std::fs::rename(folder.trim_end_matches('/'), &elsewhere).unwrap();
    std::fs::create_dir(cluster.path("bin")).unwrap();
    let deploy = |setup: &str| {
        format!("engine = \"vllm\"\nplace = [\"n2:0\"]\nparams = {{ setup = [{setup}] }}\n")
    };
    let said = cluster.run(&cluster.experiment(&deploy(""), LOAD), &[]).expect_code(4);
    assert!(said.stderr.contains("D31 host n2: "), "{}", said.stderr);
    assert!(!cluster.path("started").exists());
    std::fs::remove_dir_all(cluster.run_dir()).unwrap();
    let setup = format!("\"export PATH={}:$PATH\"", elsewhere.display());
    let said = cluster.run(&cluster.experiment(&deploy(&setup), LOAD), &[]).expect_code(4);
    // It was found, and ended by itself.
    assert!(said.stderr.contains("process pair/0/serve ended with status 3"), "{}", said.stderr);
    assert!(cluster.path("started").exists());
    let found = elsewhere.join("vllm").display().to_string();
    assert_eq!(of(&findings(&cluster), "D31", "n2")[0]["seen"], found);
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_a_port_that_is_taken_on_a_node_is_told_with_who_has_it() {
    let cluster = Cluster::new();
    let file = cluster.pair(FAST, LOAD);
    let text = std::fs::read_to_string(&file).unwrap();
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")).unwrap();
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).unwrap();
    let said = cluster.run(&file, &[]).expect_code(4);
    let want = format!("port {port}, needed by process pair/0/serve, is taken by it");
    assert!(said.stderr.contains("D12 host n1: ") && said.stderr.contains(&want), "{said:?}");
    assert!(!said.stderr.contains("D12 host n2: "), "its port is another: {}", said.stderr);
    cluster.nothing_is_left();
    let logs = super::logs(&cluster.run_dir());
    assert_eq!(logs, ["job-1.out"], "no process has a log");
    // Whoever says so starts in spite of it, and is told by the process itself.
    let said = cluster.run(&file, &["--no-doctor"]).expect_code(4);
    assert!(said.stderr.contains("process pair/0/serve ended with status "), "{}", said.stderr);
    drop(listener);
    cluster.nothing_is_left();
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_the_doctor_without_a_job_says_what_it_did_not_look_at_and_who_will() {
    let cluster = Cluster::new();
    let said = cluster.say(&["doctor", &cluster.pair(FAST, LOAD)]).expect_code(0);
    let skipped = said.stdout.lines().find(|line| line.contains("Slurm gives nodes to a job"));
    let skipped = skipped.unwrap_or_else(|| panic!("{}", said.stdout));
    for id in ["D10", "D12", "D20", "D31", "D40", "D42"] {
        assert!(skipped.contains(id), "{id} in {skipped}");
    }
    assert!(skipped.contains("run and up ask this on each of them"), "{skipped}");
    assert!(said.stdout.contains("D61  Slurm has nodes with the GPUs"), "{}", said.stdout);
    assert_eq!(cluster.jobs(), [""; 0]);
}

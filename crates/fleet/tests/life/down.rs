//! Taking down: stubborn, strayed, orphaned and foreign processes.

use crate::bench::{Bench, PYTHON, WallClock, eventually, plan, process, servers};
use scalebeam_fleet::journal::{self, Event, Journal};
use scalebeam_fleet::process::{Identity, Member};
use scalebeam_fleet::teardown::Ended;
use scalebeam_fleet::{down_run, leftovers};
use scalebeam_model::units::Nanos;
use std::io::Write;
use std::sync::Arc;

const GRACE: Nanos = Nanos::from_millis(400);

async fn down(bench: &Bench) -> scalebeam_fleet::DownReport {
    down_run(bench.dir.path(), Some(GRACE), Arc::new(WallClock)).await.unwrap()
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_the_grace() {
    let bench = Bench::new();
    let script = "trap '' TERM; echo $$ > pid.tmp; while true; do sleep 0.1; done";
    let here = bench.dir.path().to_string_lossy().into_owned();
    let script = script.replace("pid.tmp", &format!("{here}/pid"));
    let running =
        bench.up(&plan(vec![process("d/0/serve", "/bin/sh", &["-c", &script])])).await.unwrap();
    let member = bench.pid("pid").await;
    let report = running.take_down(GRACE).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.ends[0].ended, Ended::Killed);
    assert!(!member.is_alive());
    assert_eq!(bench.signals(), ["SIGTERM d/0/serve", "SIGKILL d/0/serve"]);
    let exit = bench.events().into_iter().find_map(|e| match e {
        Event::ProcessExited { exit, .. } => exit.signal,
        _ => None,
    });
    assert_eq!(exit, Some(9));
}

/// A leader with a child that has left its group by setsid.
fn straying(bench: &Bench) -> String {
    let child = "import os,time\nopen(os.environ['PIDFILE'],'w').write(f'{os.getpid()}\\n')\ntime.sleep(600)\n";
    let child = bench.script("child.py", child);
    let pidfile = bench.dir.path().join("stray").to_string_lossy().into_owned();
    format!("PIDFILE={pidfile} setsid {PYTHON} {child} & exec sleep 600")
}

#[tokio::test]
async fn a_grandchild_that_left_the_group_is_found_and_ended() {
    let bench = Bench::new();
    let script = straying(&bench);
    let running =
        bench.up(&plan(vec![process("d/0/serve", "/bin/sh", &["-c", &script])])).await.unwrap();
    let stray = bench.pid("stray").await;
    let report = running.take_down(GRACE).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.ends[0].strays, 1, "{report:?}");
    assert!(!stray.is_alive());
}

#[tokio::test]
async fn a_foreign_process_with_the_same_program_is_untouched() {
    let bench = Bench::new();
    let mut foreign = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let theirs = Identity::of(i32::try_from(foreign.id()).unwrap()).unwrap();
    let running =
        bench.up(&plan(vec![process("d/0/serve", "/bin/sleep", &["600"])])).await.unwrap();
    assert!(running.take_down(GRACE).await.is_clean());
    assert!(down(&bench).await.nothing_left());
    assert!(theirs.leader().is_alive());
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[tokio::test]
async fn after_a_kill_the_journal_alone_cleans_up_and_a_second_time_finds_nothing() {
    let bench = Bench::new();
    let mut plan = servers(&bench, 2);
    let script = straying(&bench);
    plan.processes.push(process("d/2/serve", "/bin/sh", &["-c", &script]));
    let running = bench.up(&plan).await.unwrap();
    let stray = bench.pid("stray").await;
    let pids: Vec<Member> = running
        .processes()
        .iter()
        .map(|p| Identity::of(p.pid).unwrap().leader())
        .chain([stray])
        .collect();
    // What kill -9 leaves: no teardown, and a line half written.
    drop(running);
    let mut file = std::fs::File::options().append(true).open(bench.ctx.journal.path()).unwrap();
    file.write_all(b"{\"at_unix_ns\":1,\"seq\":99,\"event\":\"signal\",\"proc").unwrap();
    assert_eq!(leftovers(bench.dir.path()).await.unwrap().len(), 3);

    let report = down(&bench).await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.ends.len(), report.torn), (3, 1));
    for member in pids {
        assert!(!member.is_alive(), "{member:?}");
    }
    let again = down(&bench).await;
    assert!(again.nothing_left(), "{again:?}");
    assert_eq!(leftovers(bench.dir.path()).await.unwrap(), []);
}

const VICTIM_DIR: &str = "FLEET_TEST_VICTIM_DIR";

/// Not a test: the scalebeam that [`a_real_kill_9_is_cleaned_up`] kills.
#[tokio::test]
#[ignore = "only as the child of another test"]
async fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else { return };
    let mut bench = Bench::new();
    let dir = std::path::PathBuf::from(dir);
    let path = dir.join(journal::FILE);
    bench.ctx.journal = Arc::new(Journal::open(&path, Arc::new(WallClock)).unwrap());
    bench.ctx.run_dir = dir;
    let _running = bench.up(&servers(&bench, 2)).await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_real_kill_9_is_cleaned_up() {
    let bench = Bench::new();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "down::victim", "--ignored", "--nocapture"])
        .env(VICTIM_DIR, bench.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually(|| bench.states().contains(&"verified".to_owned()).then_some(())).await;
    victim.kill().unwrap();
    victim.wait().unwrap();
    let left = leftovers(bench.dir.path()).await.unwrap();
    assert_eq!(left.len(), 2, "they outlive it: {left:?}");
    let report = down(&bench).await;
    assert_eq!((report.ends.len(), report.problems.len()), (2, 0), "{report:?}");
    assert!(down(&bench).await.nothing_left());
    assert!(
        left.iter()
            .flat_map(|l| &l.pids)
            .all(|pid| { scalebeam_fleet::process::stat(*pid).is_none_or(|s| !s.is_alive()) })
    );
}

#[tokio::test]
async fn a_start_that_was_never_recorded_is_found_by_its_mark() {
    let bench = Bench::new();
    let running =
        bench.up(&plan(vec![process("d/0/serve", "/bin/sleep", &["600"])])).await.unwrap();
    let member = Identity::of(running.processes()[0].pid).unwrap().leader();
    drop(running);
    // Killed between the intent and its record: only the intent is on the disk.
    let path = bench.ctx.journal.path();
    let text = std::fs::read_to_string(path).unwrap();
    let intents: Vec<&str> =
        text.lines().filter(|l| l.contains("\"event\":\"process_intent\"")).collect();
    std::fs::write(path, intents.join("\n") + "\n").unwrap();
    let report = down(&bench).await;
    assert_eq!(report.ends.len(), 1, "{report:?}");
    assert!(!member.is_alive());
    assert!(down(&bench).await.nothing_left());
}

#[tokio::test]
async fn a_reused_pid_is_never_signalled() {
    let bench = Bench::new();
    let running =
        bench.up(&plan(vec![process("d/0/serve", "/bin/sleep", &["600"])])).await.unwrap();
    assert!(running.take_down(GRACE).await.is_clean());
    // The same pid, as the journal would have it, now belongs to somebody else with another start.
    let mut foreign = {
        use std::os::unix::process::CommandExt;
        std::process::Command::new("/bin/sleep").arg("600").process_group(0).spawn().unwrap()
    };
    let theirs = Identity::of(i32::try_from(foreign.id()).unwrap()).unwrap();
    let text = std::fs::read_to_string(bench.ctx.journal.path()).unwrap();
    let mut lines = Vec::new();
    for line in text.lines().filter(|l| !l.contains("process_gone")) {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        if value["event"] == "process_started" {
            value["pid"] = theirs.pid.into();
            value["pgid"] = theirs.pgid.into();
            value["start_ticks"] = (theirs.start_ticks - 1).into();
        }
        lines.push(value.to_string());
    }
    std::fs::write(bench.ctx.journal.path(), lines.join("\n") + "\n").unwrap();
    let report = down(&bench).await;
    assert!(report.nothing_left(), "{report:?}");
    assert!(report.untouched[0].contains("another process now"), "{report:?}");
    assert!(theirs.leader().is_alive());
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[tokio::test]
async fn survivors_of_a_dead_leader_are_ended_with_its_group() {
    let bench = Bench::new();
    let pidfile = bench.dir.path().join("child").to_string_lossy().into_owned();
    // The child clears its environment, as engines that rename themselves do.
    let script =
        format!("env -i /bin/sh -c 'echo $$ > {pidfile}; exec sleep 600' & sleep 1; exit 4");
    let running =
        bench.up(&plan(vec![process("d/0/serve", "/bin/sh", &["-c", &script])])).await.unwrap();
    let child = bench.pid("child").await;
    running.died().await;
    assert!(child.is_alive());
    drop(running);
    assert_eq!(leftovers(bench.dir.path()).await.unwrap()[0].pids, [child.pid]);
    assert!(down(&bench).await.problems.is_empty());
    assert!(!child.is_alive());
}

/// The processes died by themselves while nobody was there to clean up after them.
#[tokio::test]
async fn files_of_the_dead_are_removed_too() {
    let bench = Bench::new();
    let script = "mkdir -p {scratch}/data; echo {scratch} > \"$0\"; exec sleep 600";
    let said = bench.dir.path().join("scratch").to_string_lossy().into_owned();
    let running = bench
        .up(&plan(vec![process("d/0/serve", "/bin/sh", &["-c", script, &said])]))
        .await
        .unwrap();
    let dir = eventually(|| {
        let text = std::fs::read_to_string(&said).ok()?;
        text.ends_with('\n').then(|| std::path::PathBuf::from(text.trim_end()))
    })
    .await;
    assert!(dir.join("data").is_dir(), "{}", dir.display());
    let pid = running.processes()[0].pid;
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.unwrap().success());
    running.died().await;
    drop(running);
    assert_eq!(leftovers(bench.dir.path()).await.unwrap(), []);
    assert!(down(&bench).await.nothing_left());
    assert!(!dir.exists(), "{}", dir.display());
}

#[tokio::test]
async fn down_is_legal_without_a_journal_and_with_one_that_names_no_process() {
    let empty = tempfile::tempdir().unwrap();
    let report = down_run(empty.path(), None, Arc::new(WallClock)).await.unwrap();
    assert!(report.nothing_left());
    assert!(!empty.path().join(journal::FILE).exists());
    let journal = Journal::open(&empty.path().join(journal::FILE), Arc::new(WallClock)).unwrap();
    journal.write(Event::Note { text: "x".into() }).unwrap();
    assert!(down_run(empty.path(), None, Arc::new(WallClock)).await.unwrap().nothing_left());
}

#[tokio::test]
async fn entries_go_before_workers() {
    let bench = Bench::new();
    let mut plan = servers(&bench, 1);
    plan.processes.insert(0, process("d/0/rank1", "/bin/sleep", &["600"]));
    let mut infra = process("d/infra/etcd", "/bin/sleep", &["600"]);
    infra.instance = None;
    plan.processes.insert(0, infra);
    let running = bench.up(&plan).await.unwrap();
    assert!(running.take_down(Nanos::from_secs(5)).await.is_clean());
    assert_eq!(bench.signals(), ["SIGTERM d/0/serve", "SIGTERM d/0/rank1", "SIGTERM d/infra/etcd"]);
    let gone = leftovers(bench.dir.path()).await.unwrap();
    assert_eq!(gone, []);
}

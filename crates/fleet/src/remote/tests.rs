//! The scripts, run by this machine's own `sh`, against real processes.

use super::*;
use crate::host::{Ran, Shell};
use crate::journal::Stage;
use scalebeam_model::units::Nanos;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

async fn run(script: &str) -> Ran {
    Shell::Here.run(script, LIMIT).await.unwrap()
}

fn mark(dir: &Path) -> Mark {
    Mark { run: "run 1".into(), dir: dir.display().to_string() }
}

/// The directory of the deployment on its host.
fn home(dir: &Path) -> String {
    dir.join("base/run").display().to_string()
}

fn intent(dir: &Path, process: &str, words: &[&str]) -> Intent {
    Intent {
        run: mark(dir).run,
        run_dir: mark(dir).dir,
        boot_id: crate::process::boot_id().unwrap(),
        deployment: "d".into(),
        process: process.into(),
        host: "far".into(),
        ssh: Some("far".into()),
        step: None,
        pod: None,
        scratch: Some(home(dir)),
        program: words[0].into(),
        args: words[1..].iter().map(|w| (*w).to_owned()).collect(),
        env: BTreeMap::new(),
        ports: Vec::new(),
        log: String::new(),
        stage: Stage::Worker,
        grace: Nanos::from_secs(1),
    }
}

/// Starts `words` as process `name`: its pid, start time and file.
async fn started(dir: &Path, name: &str, words: &[&str]) -> (i32, u64, String) {
    let home = home(dir);
    let ran = run(&start(&intent(dir, name, words), &BTreeMap::new(), &BTreeMap::new())).await;
    let (pid, pgid, ticks) = parse_start(&ran.stdout).unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!(pid, pgid, "it leads its group");
    (pid, ticks, file(&home, name))
}

async fn ended(dir: &Path, name: &str, leader: Option<(i32, u64)>, act: Act) -> Vec<Said> {
    let boot_id = crate::process::boot_id().unwrap();
    let wanted = [Wanted { process: name, leader, boot_id: &boot_id, ports: &[] }];
    parse_end(&run(&end(&mark(dir), &wanted, act)).await.stdout)
}

fn how(said: &[Said]) -> (How, usize) {
    let found = said.iter().find_map(|s| match s {
        Said::End { how, strays, .. } => Some((*how, *strays)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{said:?}"))
}

const END_SOON: Act = Act::End { grace_s: 1 };

#[tokio::test]
async fn a_process_is_followed_to_its_end_and_its_status_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo one; sleep 0.3; echo two; exit 7";
    let (pid, ticks, file) = started(dir.path(), "d/0/serve", &["sh", "-c", script]).await;
    let followed = run(&follow(&file, pid, ticks, 0)).await;
    let from = followed.stdout.len() as u64;
    let left = run(&rest(&file, pid, ticks, from)).await;
    assert_eq!(followed.stdout + &left.stdout, "one\ntwo\n");
    assert_eq!(parse_rest(&left.stderr), Some(Fate::Ended(Some(7))));
    let clean = run(&clean(&dir.path().join("base/run").display().to_string())).await;
    assert_eq!((clean.status, clean.stderr.as_str()), (Some(0), ""));
    assert!(!dir.path().join("base").exists());
}

#[tokio::test]
async fn any_word_and_any_value_arrives_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let odd = "it's $HOME `x` \"q\" \\ \n* ü";
    let conf = format!("{}/a.conf", home(dir.path()));
    let mut wish = intent(
        dir.path(),
        "d/0/serve",
        &[
            "sh",
            "-c",
            "printf '%s|%s|' \"$1\" \"$ODD\"; printenv SECRET; cat \"$2\"",
            "x",
            odd,
            &conf,
        ],
    );
    wish.env.insert("ODD".into(), EnvValue::Set(odd.into()));
    wish.env.insert("SECRET".into(), EnvValue::INHERIT);
    wish.env.insert("not a name".into(), EnvValue::Set("1".into()));
    let home = home(dir.path());
    let secrets = BTreeMap::from([("SECRET".to_owned(), "s3cret'".to_owned())]);
    let files = BTreeMap::from([("a.conf".to_owned(), odd.to_owned())]);
    let ran = run(&start(&wish, &files, &secrets)).await;
    let (pid, _, ticks) = parse_start(&ran.stdout).unwrap();
    let file = file(&home, "d/0/serve");
    run(&follow(&file, pid, ticks, 0)).await;
    let log = run(&rest(&file, pid, ticks, 0)).await.stdout;
    assert_eq!(log, format!("{odd}|{odd}|s3cret'\n{odd}"));
}

#[tokio::test]
async fn a_process_with_its_children_is_ended_and_is_gone_the_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let script = "sleep 1000 & exec sleep 1000";
    let (pid, ticks, _) = started(dir.path(), "d/0/serve", &["sh", "-c", script]).await;
    let left = ended(dir.path(), "d/0/serve", Some((pid, ticks)), Act::Look).await;
    assert!(matches!(&left[..], [Said::Left { pids, .. }] if pids.len() == 3), "{left:?}");
    let said = ended(dir.path(), "d/0/serve", Some((pid, ticks)), END_SOON).await;
    assert_eq!(how(&said), (How::Terminated, 0));
    assert_eq!(ended(dir.path(), "d/0/serve", Some((pid, ticks)), Act::Look).await, []);
    let said = ended(dir.path(), "d/0/serve", Some((pid, ticks)), END_SOON).await;
    assert_eq!(how(&said), (How::Gone, 0));
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_with_what_left_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; setsid sleep 1000 & while :; do sleep 0.2; done";
    let (pid, ticks, _) = started(dir.path(), "d/0/serve", &["sh", "-c", script]).await;
    let said = ended(dir.path(), "d/0/serve", Some((pid, ticks)), END_SOON).await;
    assert_eq!(how(&said).0, How::Killed);
    assert_eq!(ended(dir.path(), "d/0/serve", Some((pid, ticks)), Act::Look).await, []);
}

/// As Ray's agents are: they leave the group, overwrite their environment, and outlive their parent.
#[tokio::test]
async fn a_child_that_is_known_by_its_parent_alone_is_ended_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    let agent = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.2; done", note.display());
    let words = ["sh", "-c", "setsid env -i /bin/sh -c \"$1\" & wait", "x", &agent];
    let (pid, ticks, _) = started(dir.path(), "d/0/ray0", &words).await;
    let child = loop {
        let text = std::fs::read_to_string(&note).unwrap_or_default();
        if let Ok(child) = text.trim().parse::<i32>() {
            break child;
        }
        tokio::task::yield_now().await;
    };
    let said = ended(dir.path(), "d/0/ray0", Some((pid, ticks)), END_SOON).await;
    let (how, strays) = how(&said);
    // Perhaps with the sleep that it is in.
    assert!(how == How::Terminated && strays >= 1, "{said:?}");
    assert!(!crate::process::stat(child).is_some_and(|s| s.is_alive()), "it lives on");
}

/// scalebeam was killed between the intent and the record of the pid.
#[tokio::test]
async fn one_that_was_never_recorded_is_found_by_its_marks_and_no_other() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    started(dir.path(), "d/0/serve", &["sleep", "1000"]).await;
    let (pid, ticks, _) = started(other.path(), "d/0/serve", &["sleep", "1000"]).await;
    let said = ended(dir.path(), "d/0/serve", None, END_SOON).await;
    assert_eq!(how(&said), (How::Terminated, 0));
    // One of the same name, of the same run name in another directory, goes on.
    let left = ended(other.path(), "d/0/serve", Some((pid, ticks)), Act::Look).await;
    assert_eq!(left.len(), 1);
    assert_eq!(how(&ended(other.path(), "d/0/serve", None, END_SOON).await).0, How::Terminated);
}

#[tokio::test]
async fn a_number_that_is_somebody_else_s_now_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(bystander.id()).unwrap();
    let said = ended(dir.path(), "d/0/serve", Some((pid, 1)), END_SOON).await;
    assert_eq!(how(&said), (How::Gone, 0));
    assert!(said.contains(&Said::Reused { process: "d/0/serve".into(), pid }));
    let boot =
        Wanted { process: "d/0/serve", leader: Some((pid, 1)), boot_id: "other", ports: &[] };
    let said = parse_end(&run(&end(&mark(dir.path()), &[boot], END_SOON)).await.stdout);
    assert_eq!(how(&said), (How::Gone, 0));
    assert!(bystander.try_wait().unwrap().is_none(), "it was signalled");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_host_is_looked_at_before_anything_starts_on_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let process = |program: &str, port: u16| ProcessPlan {
        id: "d/0/serve".into(),
        instance: Some(0),
        host: "far".into(),
        program: program.into(),
        args: Vec::new(),
        env: BTreeMap::new(),
        ports: vec![PortPlan { name: "http".into(), addr: "127.0.0.1".into(), port }],
        gpus: Vec::new(),
        rank: 0,
        log: String::new(),
        after: None,
        files: BTreeMap::new(),
    };
    let (there, absent) = (process("sleep", port), process("no-such-program", 1));
    let seen = parse_look(&run(&look(&[&there, &absent])).await.stdout).unwrap();
    assert_eq!(seen.absent, BTreeSet::from(["no-such-program".to_owned()]));
    assert_eq!(seen.boot_id, crate::process::boot_id().unwrap());
    assert_eq!(seen.lacks, [""; 0]);
    let me = format!("(pid {})", std::process::id());
    assert!(seen.taken[&port].contains(&me), "{seen:?}");
    assert_eq!(seen.taken.len(), 1);
    assert_eq!(parse_look("Welcome to far!\n"), None);
}

#[tokio::test]
async fn a_directory_that_is_somebody_else_s_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/tmp", dir.path().join("base")).unwrap();
    let none = BTreeMap::new();
    let ran = run(&start(&intent(dir.path(), "d/0/x", &["true"]), &none, &none)).await;
    assert_eq!(parse_start(&ran.stdout), None);
    assert!(ran.stderr.contains("not a directory of this user"), "{ran:?}");
}

#[test]
fn runs_of_one_name_have_directories_of_their_own() {
    let of = |dir: &str, deployment: &str| {
        dir_of("/tmp/b", &Mark { run: "r 1".into(), dir: dir.into() }, deployment)
    };
    assert_ne!(of("/a", "d"), of("/b", "d"));
    assert_ne!(of("/a", "d"), of("/a", "e"));
    assert_eq!(of("/a", "d/../x").len(), "/tmp/b/".len() + 8);
}

#[tokio::test]
async fn a_host_says_whether_the_very_program_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's a program");
    let at = path.display().to_string();
    std::fs::write(&path, "abc").unwrap();
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let seen = async |size, digest: &str| {
        let ran = Shell::Here.run(&agent_look(&at, size, digest), LIMIT).await.unwrap();
        parse_agent_look(&ran.stdout).unwrap()
    };
    assert!(!seen(3, digest).await.has_it, "nobody may execute it");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = seen(3, digest).await;
    assert!(found.has_it && found.system.starts_with("Linux "), "{found:?}");
    assert!(!found.host.boot_id.is_empty());
    assert!(!seen(4, digest).await.has_it && !seen(3, "00").await.has_it);
    assert_eq!(parse_agent_look("boot 1\nbase /tmp\n"), None);
}

#[tokio::test]
async fn a_program_comes_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    std::fs::write(&from, "#!/bin/sh\necho scalebeam 1\n").unwrap();
    let base = dir.path().join("base").display().to_string();
    let (to, path) = (format!("{base}/r1"), format!("{base}/r1/a b"));
    let size = std::fs::metadata(&from).unwrap().len();
    let wrong = Shell::Here.send(&agent_take(&to, &path, size, "00"), &from, LIMIT).await.unwrap();
    assert_eq!(wrong.status, Some(74), "{wrong:?}");
    assert!(wrong.stderr.contains("other bytes came"), "{wrong:?}");
    let short = agent_take(&to, &path, size + 1, "00");
    let short = Shell::Here.send(&short, &from, LIMIT).await.unwrap();
    assert!(short.stderr.contains("bytes came"), "{short:?}");
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0, "nothing is left of it");
    let sum = run(&format!("sha256sum {}", quote(&from.display().to_string()))).await;
    let digest = sum.stdout[..64].to_owned();
    let came =
        Shell::Here.send(&agent_take(&to, &path, size, &digest), &from, LIMIT).await.unwrap();
    assert_eq!((came.status, came.stderr.as_str()), (Some(0), ""));
    let proof = Shell::Here.run(&agent_prove(&path), LIMIT).await.unwrap();
    assert_eq!(proof.stdout, "scalebeam 1\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

//! Modal and SkyPilot: the whole life of a deployment, with stand-ins for their clients on PATH.

use crate::interrupt::signal;
use crate::support::{Lab, Said, Server, emulator, root, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MODEL: &str = "org/model";
const LOAD: &str = "mode = \"closed\"\nconcurrency = 2\nrequests = 6\nwarmup = 0\n";

/// Where a deployment goes.
#[derive(Debug, Clone, Copy)]
struct Platform {
    name: &'static str,
    program: &'static str,
    /// Keys of the deployment.
    deploy: &'static str,
    /// The first words of the call that brings it up, and of the one that takes it down.
    up: &'static str,
    down: &'static str,
    /// What a deployment that failed says, and where that leads.
    failure: &'static str,
}

const MODAL: Platform = Platform {
    name: "modal",
    program: "modal",
    deploy: "version = \"0.32.0\"\ngpu = \"H100\"",
    up: "deploy ",
    down: "app stop ",
    failure: "Image build for im-abc123 failed",
};
const SKY: Platform = Platform {
    name: "skypilot",
    program: "sky",
    deploy: "version = \"0.32.0\"\ngpu = \"H100\"",
    up: "launch ",
    down: "down ",
    failure: "try another region",
};

struct Cloud {
    lab: Lab,
    server: Server,
}

impl Cloud {
    fn new(platform: Platform) -> Self {
        let server = emulator(&["--ttft", "5ms", "--itl", "1ms", "--model", MODEL]);
        let text = format!(
            "schema = 1\nname = \"lab\"\n[model]\nid = \"{MODEL}\"\n\
             [[deploy]]\nname = \"one\"\nplatform = \"{}\"\nengine = \"vllm\"\n{}\n\
             ready = {{ timeout = \"60s\" }}\nstop = {{ grace = \"1s\" }}\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 32\nosl = 8\nseed = 1\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\n{LOAD}\n",
            platform.name, platform.deploy
        );
        let lab = Lab::new(&text);
        let bin = lab.dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let script = root().join("tests-support/cloud_cli.py");
        std::os::unix::fs::symlink(script, bin.join(platform.program)).unwrap();
        Self { lab, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.dir.path().join(name)
    }

    fn behave(&self, words: &str) {
        std::fs::write(self.path("behaviour"), words).unwrap();
    }

    fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.lab.file()).unwrap();
        std::fs::write(self.lab.file(), text.replace(from, to)).unwrap();
    }

    fn equip(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap();
        let bin = self.path("bin");
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.env("STANDIN_DIR", self.lab.dir.path()).env("STANDIN_URL", &self.server.url);
        // The tests of one machine must not see each other's, nor a person's own.
        command.env_remove("MODAL_ENVIRONMENT").env("PYTHONDONTWRITEBYTECODE", "1");
    }

    fn say(&self, verb: &str, more: &[&str]) -> Said {
        let mut command = self.lab.command(verb);
        self.equip(&mut command);
        command.args(more).output().unwrap().into()
    }

    fn start(&self, verb: &str) -> Child {
        let mut command = self.lab.command(verb);
        self.equip(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn count(&self, words: &str) -> usize {
        self.calls().iter().filter(|call| call.starts_with(words)).count()
    }

    /// What the stand-in says is there.
    fn alive(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("state.json")).unwrap_or("{}".into());
        let state: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = state.as_object().unwrap().iter();
        all.filter(|(_, app)| app["state"] != "stopped").map(|(name, _)| name.clone()).collect()
    }

    #[track_caller]
    fn nothing_left(&self) {
        assert_eq!(self.alive(), Vec::<String>::new(), "{:#?}", self.calls());
        assert_eq!(crate::support::marked_processes(&self.lab.runs()), []);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.behave("");
        if self.lab.runs().exists() {
            let runs = self.lab.runs();
            let mut down = crate::support::scalebeam();
            self.equip(&mut down);
            let _ = down.arg("down").arg("--out").arg(runs).output();
        }
    }
}

fn results(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("results.json")).unwrap()).unwrap()
}

#[test]
fn a_deployment_of_a_cloud_is_brought_up_measured_and_taken_down() {
    for platform in [MODAL, SKY] {
        let cloud = Cloud::new(platform);
        let said = cloud.say("run", &[]);
        assert!(matches!(said.code, Some(0 | 3)), "{said:#?}");
        let points = &results(&cloud.lab.run_dir())["points"];
        assert_eq!(points.as_array().unwrap().len(), 1, "{points}");
        assert_eq!((cloud.count(platform.up), cloud.count(platform.down)), (1, 1));
        cloud.nothing_left();
    }
}

#[test]
fn a_client_too_old_for_addresses_has_its_deployment_s_word_for_it() {
    let cloud = Cloud::new(MODAL);
    cloud.rewrite("timeout = \"60s\"", "timeout = \"8s\"");
    cloud.behave("old");
    let said = cloud.say("up", &["--deploy", "one"]);
    // The address that it printed leads nowhere here.
    let text = &said.stderr;
    assert!(text.contains("serve.modal.run") && said.code == Some(4), "{said:#?}");
    cloud.nothing_left();
}

#[test]
fn what_fails_is_told_in_the_client_s_words_and_leaves_nothing() {
    for platform in [MODAL, SKY] {
        let cloud = Cloud::new(platform);
        cloud.behave("fails");
        let said = cloud.say("up", &["--deploy", "one"]).expect_code(4);
        assert!(said.stderr.contains(platform.failure), "{said:#?}");
        cloud.nothing_left();
    }
}

#[test]
fn missing_credentials_are_said_before_anything_is_begun() {
    let cloud = Cloud::new(MODAL);
    cloud.behave("token");
    let said = cloud.say("up", &["--deploy", "one"]).expect_code(4);
    assert!(said.stderr.contains("modal token new"), "{said:#?}");
    assert_eq!(cloud.count("deploy"), 0);
}

#[test]
fn a_missing_client_is_said_with_its_name() {
    let cloud = Cloud::new(SKY);
    std::fs::remove_file(cloud.path("bin/sky")).unwrap();
    let said = cloud.say("up", &["--deploy", "one"]).expect_code(4);
    assert!(said.stderr.contains("cannot start sky"), "{said:#?}");
}

#[test]
fn a_task_that_ends_is_told_with_its_log() {
    let cloud = Cloud::new(SKY);
    cloud.behave("task-fails");
    let said = cloud.say("up", &["--deploy", "one"]).expect_code(4);
    assert!(said.stderr.contains("FAILED_SETUP"), "{said:#?}");
    assert!(said.stderr.contains("No matching distribution"), "{said:#?}");
    cloud.nothing_left();
}

#[test]
fn down_takes_what_a_killed_run_was_deploying() {
    for platform in [MODAL, SKY] {
        let cloud = Cloud::new(platform);
        cloud.behave("slow");
        let mut run = cloud.start("run");
        wait_for("it is being deployed", || !cloud.alive().is_empty());
        signal(run.id(), "KILL");
        run.wait().unwrap();
        // Its client lives on, and would finish.
        assert_eq!(crate::support::marked_processes(&cloud.lab.runs()).len(), 1);
        let refused = cloud.say("run", &[]).expect_code(4);
        assert!(refused.stderr.contains("has left something running"), "{refused:#?}");
        let down = cloud.say("down", &[]).expect_code(0);
        assert!(down.stdout.contains("terminated"), "{down:#?}");
        cloud.nothing_left();
        let again = cloud.say("down", &[]).expect_code(0);
        assert!(again.stdout.contains("nothing left"), "{again:#?}");
    }
}

#[test]
fn an_interrupt_while_it_is_deployed_takes_it_down() {
    for platform in [MODAL, SKY] {
        let cloud = Cloud::new(platform);
        cloud.behave("slow");
        let mut run = cloud.start("run");
        wait_for("it is being deployed", || !cloud.alive().is_empty());
        signal(run.id(), "INT");
        assert_eq!(run.wait().unwrap().code(), Some(130));
        cloud.nothing_left();
    }
}

#[test]
fn what_cannot_be_stopped_is_said_until_it_is() {
    for platform in [MODAL, SKY] {
        let cloud = Cloud::new(platform);
        cloud.say("up", &["--deploy", "one"]).expect_code(0);
        cloud.behave("refuses");
        let down = cloud.say("down", &[]).expect_code(4);
        assert!(down.stdout.contains("problem"), "{down:#?}");
        assert_eq!(cloud.alive().len(), 1);
        cloud.behave("");
        cloud.say("down", &[]).expect_code(0);
        cloud.nothing_left();
    }
}

#[test]
fn what_somebody_else_stops_ends_the_run() {
    for platform in [MODAL, SKY] {
        let cloud = Cloud::new(platform);
        cloud.rewrite("requests = 6", "requests = 100000");
        let mut command = cloud.lab.command("run");
        cloud.equip(&mut command);
        let run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let journal = || {
            let dir = std::fs::read_dir(cloud.lab.runs()).ok()?.next()?.ok()?.path();
            std::fs::read_to_string(dir.join("journal.jsonl")).ok()
        };
        wait_for("it is measured", || journal().is_some_and(|j| j.contains("\"verified\"")));
        cloud.behave("gone");
        let said: Said = run.wait_with_output().unwrap().into();
        assert_eq!(said.code, Some(4), "{said:#?}");
        assert!(
            said.stderr.contains("is stopped") || said.stderr.contains("not there any more"),
            "{said:#?}"
        );
        cloud.nothing_left();
    }
}

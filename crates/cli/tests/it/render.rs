//! `plan --render`: what is written, what is left alone, and what is refused.

use crate::support::{Lab, root, say};
use std::path::Path;
use std::process::Command;

fn rendered(name: &str, dir: &Path, more: &[&str]) -> crate::support::Said {
    let file = root().join(format!("experiments/{name}.toml")).display().to_string();
    let dir = dir.display().to_string();
    let mut args = vec!["plan", &file, "--render", &dir];
    args.extend(more);
    say(args)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_list_says_what_to_do_with_each_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let said = rendered("platforms", &out, &[]).expect_code(0).stdout;
    let said = said.replace(&out.display().to_string(), "DIR");
    insta::assert_snapshot!(said);
}

#[test]
fn json_names_the_files_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let said = rendered("seed2-kuberay-scaling", dir.path(), &["--json"]).expect_code(0).json();
    let deployments = said["deployments"].as_array().unwrap();
    assert_eq!(deployments.len(), 9);
    for one in deployments {
        let path = one["files"][0]["path"].as_str().unwrap();
        let text = std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert!(text.contains(one["deployment"].as_str().unwrap()), "{path}");
        assert!(text.contains(one["up"].as_str().unwrap()), "{path}");
    }
}

#[test]
fn rendering_again_replaces_what_was_rendered_and_removes_what_is_no_more() {
    let dir = tempfile::tempdir().unwrap();
    rendered("seed4-modal-gpu-users", dir.path(), &[]).expect_code(0);
    assert_eq!(names(dir.path()).len(), 4);
    rendered("seed4-modal-gpu-users", dir.path(), &["--deploy", "2gpu"]).expect_code(0);
    let left = names(dir.path());
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().any(|n| n.contains("2gpu")), "{left:?}");
}

#[test]
fn files_of_somebody_else_are_named_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    rendered("seed4-modal-gpu-users", dir.path(), &["--deploy", "1gpu"]).expect_code(0);
    let ours = names(dir.path()).into_iter().find(|n| n.contains("1gpu")).unwrap();
    std::fs::write(dir.path().join(&ours), "# mine now\n").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "keep").unwrap();
    let said = rendered("seed2-kuberay-scaling", dir.path(), &[]).expect_code(2);
    assert!(said.stderr.contains("  notes.txt\n"), "{}", said.stderr);
    assert!(said.stderr.contains(&format!("  {ours} (changed since)\n")), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(dir.path().join(&ours)).unwrap(), "# mine now\n");
    assert_eq!(names(dir.path()).len(), 3, "nothing was written");
}

#[test]
fn a_file_without_such_a_platform_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let said = rendered("quickstart", dir.path(), &[]).expect_code(2);
    assert!(said.stderr.contains("no deployment here has files"), "{}", said.stderr);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_misspelt_parameter_of_a_platform_has_a_hint() {
    let text = std::fs::read_to_string(root().join("experiments/platforms.toml")).unwrap();
    let lab = Lab::new(&text.replace("hf_cache = \"hug", "hf_cash = \"hug"));
    let said = lab.say("check", &[]).expect_code(2);
    assert!(
        said.stderr.contains("unknown parameter 'hf_cash' of sglang on modal"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("did you mean 'hf_cache'?"), "{}", said.stderr);
}

#[test]
fn run_refuses_and_names_the_files() {
    let platforms = std::fs::read_to_string(root().join("experiments/platforms.toml")).unwrap();
    // Nobody has brought this pair up yet.
    let vllm = "engine   = \"vllm\"\nversion  = \"0.32.0\"\ngpu      = \"H100\"\ntp       = 2";
    let lab = Lab::new(&platforms.replacen(vllm, "engine = \"llama.cpp\"\nimage = \"llama:1\"", 1));
    let said = lab.say("run", &["--deploy", "k8s-one"]).expect_code(4);
    assert!(said.stderr.contains("scalebeam plan FILE --render DIR"), "{}", said.stderr);
}

#[test]
fn a_secret_of_the_shell_stays_in_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let file = root().join("experiments/platforms.toml");
    let mut command = crate::support::scalebeam();
    command.arg("plan").arg(file).arg("--render").arg(dir.path()).env("HF_TOKEN", "hunter2");
    assert!(command.output().unwrap().status.success());
    let mut named = 0;
    for name in names(dir.path()) {
        let text = std::fs::read_to_string(dir.path().join(&name)).unwrap();
        assert!(!text.contains("hunter2"), "{name}");
        named += usize::from(text.contains("HF_TOKEN"));
    }
    assert!(named > 0, "the token is passed on by name");
}

#[test]
fn python_and_bash_read_what_was_rendered() {
    let dir = tempfile::tempdir().unwrap();
    rendered("platforms", dir.path(), &[]).expect_code(0);
    for name in names(dir.path()) {
        let path = dir.path().join(&name).display().to_string();
        let status = if name.ends_with(".py") {
            Command::new("python3").args(["-m", "py_compile", &path]).status().unwrap()
        } else if name.ends_with(".sbatch") {
            Command::new("bash").args(["-n", &path]).status().unwrap()
        } else {
            continue;
        };
        assert!(status.success(), "{name}");
    }
}

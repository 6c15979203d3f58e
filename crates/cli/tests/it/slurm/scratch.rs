//! What processes write on a node goes with their job, also where they do not end by themselves.

use super::{Cluster, LONG};
use crate::interrupt::{records, signal};
use crate::route::stand_in;
use crate::support::{marked_processes, wait_for};

/// Copies of a vLLM that hear no SIGTERM and write among their temporary files.
fn deaf(cluster: &Cluster, copies: usize, load: &str) -> String {
    let bin = stand_in(cluster.dir.path(), "moved");
    let text = std::fs::read_to_string(&bin).unwrap();
    let written = text.replacen("exec ", "trap '' TERM; touch \"$TMPDIR/$port\"; exec ", 1);
    assert_ne!(written, text);
    std::fs::write(&bin, written).unwrap();
    let places = ["\"n1:0\"", "\"n2:0\""][..copies].join(", ");
    let deploy = format!(
        "engine = \"vllm\"\nreplicas = {copies}\nplace = [{places}]\nparams = {{ bin = \"{bin}\" }}"
    );
    let file = cluster.experiment(&deploy, load);
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("Qwen/Qwen2.5-7B-Instruct", "plain");
    std::fs::write(&file, text.replace("grace = \"5s\"", "grace = \"1s\"")).unwrap();
    file
}

#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_what_steps_wrote_that_had_to_be_killed_is_cleared_up() {
    let cluster = Cluster::new();
    let load = "mode = \"closed\"\nconcurrency = 2\nrequests = 20\nwarmup = 2\n";
    let said = cluster.run(&deaf(&cluster, 2, load), &[]);
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    assert!(said.stderr.contains("pair: taken down"), "{}", said.stderr);
    cluster.nothing_is_left();
}

/// The second Ctrl-C waits for nobody, and leaves nothing either.
#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_two_interrupts_end_a_job_at_once_with_what_it_wrote() {
    let cluster = Cluster::new();
    let mut live = cluster.start_run(&deaf(&cluster, 2, LONG));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    assert_eq!(cluster.scratch().len(), 1, "one folder for all of the node");
    for _ in 0..2 {
        signal(live.child.id(), "INT");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let (code, said) = live.end();
    assert_eq!(code, Some(130), "{said}");
    cluster.down().expect_code(0);
    cluster.nothing_is_left();
}

/// Nobody is left on the node who would clear up, and the other copy hears no SIGTERM: the script of the job ends that,
/// and clears up.
#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_what_a_step_wrote_whose_shell_was_killed_goes_with_the_job() {
    let cluster = Cluster::new();
    let file = deaf(&cluster, 2, &LONG.replace("100000", "4000"));
    let text = std::fs::read_to_string(&file).unwrap();
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")).unwrap();
    let first = format!("--port {port}");
    let mut live = cluster.start_run(&file);
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    let of_step = |command: &str| {
        !command.starts_with("srun ")
            && (command.contains("truth_server") || command.contains("steps="))
            && command.contains(&first)
    };
    let all = marked_processes(&cluster.runs());
    let killed: Vec<_> = all.iter().filter(|(_, command)| of_step(command)).collect();
    assert_eq!(killed.len(), 2, "the engine and its shell: {all:#?}");
    for (pid, _) in &killed {
        signal(u32::try_from(*pid).unwrap(), "KILL");
    }
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(said.contains("process pair/0/serve ended with signal 9 (SIGKILL)"), "{said}");
    cluster.nothing_is_left();
}

/// Who started a job by hand ends it with the command that is printed beside it, and needs no scalebeam for that.
#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_what_is_printed_to_end_a_job_ends_it_whole() {
    let cluster = Cluster::new();
    let file = deaf(&cluster, 2, LONG);
    let out = cluster.path("out").display().to_string();
    let told = cluster.say(&["plan", &file, "--render", &out]).expect_code(0).stdout;
    let down = told.lines().find_map(|line| line.trim().strip_prefix("down: ")).unwrap();
    let script = cluster.path("out").join("pair.sbatch").display().to_string();
    cluster.ask("sbatch", &["--parsable", &script]).expect_code(0);
    let scratch = || super::of_temporary("sb-pair-1");
    wait_for("both copies", || scratch().iter().any(|dir| count(dir) == 3));
    cluster.ask("sh", &["-c", down]).expect_code(0);
    wait_for("the end", || cluster.jobs().is_empty());
    assert_eq!(scratch(), Vec::<std::path::PathBuf>::new());
    let job = cluster.ask("scontrol", &["show", "job", "1"]).stdout;
    assert!(job.contains("Comment=ends: its script was told to"), "{job}");
}

/// What Slurm ends at once cannot clear up on other nodes. Where that may be is told.
#[test]
#[ignore = "needs root and Slurm: run by ci/test"]
fn slurm_what_may_be_left_of_a_job_that_somebody_cancels_is_named() {
    let cluster = Cluster::new();
    let mut live = cluster.start_run(&deaf(&cluster, 2, LONG));
    wait_for("the load", || records(&cluster.runs(), "pair") > 4);
    cluster.ask("scancel", &["1"]).expect_code(0);
    let (code, said) = live.end();
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    let told = ["job 1 was cancelled, and not", "job 1 is being ended, and not"];
    assert!(told.iter().any(|told| said.contains(told)), "{said}");
    let scratch = format!("/tmp/sb-{}-1", cluster.job_names()[0].rsplit_once('-').unwrap().1);
    assert!(
        said.contains("could not clear up: remove ")
            || said.contains("before it could clear up: see whether "),
        "{said}"
    );
    assert!(said.contains(&scratch), "{said}");
    for dir in cluster.scratch() {
        std::fs::remove_dir_all(dir).unwrap();
    }
    cluster.down().expect_code(0);
    cluster.nothing_is_left();
}

fn count(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

//! A shell as a step of a job of Slurm, on one of its nodes.
//!
//! **Invariants.** A step of ours takes nothing from the others of its job: it overlaps their CPUs and GPUs, and no
//! memory is counted for it. It waits for nothing: what cannot be started within seconds is an error. Of our
//! environment it is given what a shell needs to find programs and room, and no more.

use serde::{Deserialize, Serialize};
use std::process::{Command, ExitStatus};

/// `--overlap` is from Slurm 20.11 on. GPUs are not declined (`--gres=none`): where a control group hides devices, an
/// agent would not see them.
const OPTIONS: [&str; 9] = [
    "--quiet",
    "--overlap",
    "--nodes=1",
    "--ntasks=1",
    "--cpus-per-task=1",
    "--mem=0",
    "--immediate=15",
    "--chdir=/",
    "--export=PATH,HOME,TMPDIR",
];

/// Variables with which a user, or a job around us, would change what Slurm's programs do or print.
const NOT_OURS: [&str; 4] = ["SLURM_", "SQUEUE_", "SCANCEL_", "SACCT_"];
/// The one of them that says where the cluster is.
pub(crate) const CONF_VARIABLE: &str = "SLURM_CONF";

/// What `srun` says where the job does not run any more.
const OVER: [&str; 5] = [
    "Invalid job id",
    "Expired or invalid job",
    "has expired",
    "already completing or completed",
    "Job has already finished",
];

/// Whether Slurm's programs are started without variable `name`, because it would change what they do.
pub(crate) fn is_foreign(name: &str) -> bool {
    let is_theirs = name == "SBATCH_CLUSTERS" || NOT_OURS.iter().any(|p| name.starts_with(p));
    is_theirs && name != CONF_VARIABLE
}

/// A place for steps: a node of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Step {
    /// Id of the job.
    pub job: String,
    /// Slurm's name of the node.
    pub node: String,
    /// The configuration of its cluster; absent for the one that Slurm's programs find by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf: Option<String>,
}

impl Step {
    /// What starts a shell there that takes its script by standard input.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("srun");
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_foreign(&name.to_string_lossy()))
        {
            command.env_remove(name);
        }
        if let Some(conf) = &self.conf {
            command.env(CONF_VARIABLE, conf);
        }
        command.args(OPTIONS).args(["--jobid", &self.job, "--nodelist", &self.node]);
        command.args(["sh", "-s"]);
        command
    }
}

/// What `srun` said, where it and not its task failed; nothing where the task ended by itself, with whatever status.
pub(super) fn failure(status: ExitStatus, stderr: &str) -> Option<String> {
    if status.success() {
        return None;
    }
    let lines = stderr.lines().map(str::trim);
    let said: Vec<&str> = lines.filter_map(|line| line.strip_prefix("srun: ")).collect();
    // `srun: error: n1: task 0: Exited with exit code 3` tells of a script.
    if said.is_empty() || said.iter().any(|line| line.contains(": task 0: ")) {
        return None;
    }
    Some(said.join("; "))
}

/// Whether `said`, by srun, means that the job has ended, and with it all that it ran.
pub(super) fn is_over(said: &str) -> bool {
    OVER.iter().any(|words| said.contains(words))
}

/// What to do where `srun` said this.
pub(super) fn hint(said: &str) -> String {
    if said.contains("unrecognized option") {
        return "it needs Slurm 20.11 or newer, whose srun knows --overlap".to_owned();
    }
    if said.contains("Unable to create step") {
        return "see `scontrol show job` and `scontrol show step` of it: steps of ours need one CPU that \
                may be shared"
            .to_owned();
    }
    "see whether slurmctld and slurmd of that node run: try srun by hand".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    /// Words of Slurm 22.05.
    #[test]
    fn what_srun_says_of_itself_is_told_from_what_it_ran() {
        let own = "srun: error: n2: task 0: Exited with exit code 73\nno room\n";
        assert_eq!(failure(status(73), own), None);
        assert_eq!(failure(status(3), "no such file\n"), None);
        assert_eq!(failure(status(0), "srun: cluster configuration lacks support\n"), None);
        let busy = "srun: error: Unable to create step for job 1: More processors requested than \
                    permitted\n";
        let said = failure(status(1), busy).unwrap();
        assert!(said.starts_with("error: Unable to create step for job 1: More"), "{said}");
        assert!(!is_over(&said) && hint(&said).contains("one CPU"));
        let old =
            "srun: unrecognized option '--overlap'\nTry \"srun --help\" for more information\n";
        let said = failure(status(255), old).unwrap();
        assert!(hint(&said).contains("20.11"), "{said}");
        let gone = "srun: error: Unable to confirm allocation for job 99: Invalid job id specified\n\
                    srun: Check SLURM_JOB_ID environment variable. Expired or invalid job 99\n";
        assert!(is_over(&failure(status(1), gone).unwrap()));
        assert!(is_over(&failure(status(1), "srun: error: Slurm job 1 has expired\n").unwrap()));
    }

    #[test]
    fn a_step_goes_to_its_cluster_and_shares_what_others_have() {
        let conf = Some("/etc/other.conf".to_owned());
        let command = Step { job: "17".into(), node: "n1".into(), conf }.command();
        let args: Vec<&str> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert!(args.contains(&"--overlap") && args.contains(&"--mem=0"), "{args:?}");
        assert_eq!(args[args.len() - 6..], ["--jobid", "17", "--nodelist", "n1", "sh", "-s"]);
        let given = command.get_envs().find(|(name, _)| *name == CONF_VARIABLE);
        assert_eq!(given.and_then(|(_, value)| value), Some("/etc/other.conf".as_ref()));
        assert!(is_foreign("SLURM_JOB_ID") && !is_foreign(CONF_VARIABLE) && !is_foreign("PATH"));
    }
}

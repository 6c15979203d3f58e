//! What Slurm's programs print, read. Pure.

use crate::error::Exit;
use crate::launch::managed::End;
use std::collections::BTreeMap;

/// Reasons of a pending job that no wait will end, and what to do about each.
const DEAD_ENDS: &[(&str, &str)] = &[
    ("BadConstraints", "no node of the partition has what the job asks for"),
    ("PartitionNodeLimit", "the partition allows fewer nodes in one job"),
    ("PartitionTimeLimit", "lower `time` in params: the partition allows less"),
    ("InvalidAccount", "correct `account` in params"),
    ("InvalidQOS", "correct `qos` in params"),
    ("JobHeldUser", "somebody holds the job: `scontrol release` it next time"),
    ("JobHeldAdmin", "an administrator holds the job: ask why"),
    ("launch_failed", "a node could not start it: ask an administrator to look at slurmd's log"),
    ("AccountingPolicy", "a limit of the account is reached: see `sacctmgr show associations`"),
];

/// How the comment of a job begins whose script ends it, and what stands in it before a path that was left on its nodes.
const ENDS: &str = "ends: ";
const LEFT: &str = "; left: ";
const TIME_HINT: &str = "raise `time` in params; `run --resume` goes on with the rest";

/// A job, as `scontrol show job` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) name: String,
    /// `RUNNING`.
    state: String,
    /// Why it is pending.
    reason: String,
    /// `1:0`, status and signal of its script.
    exit: String,
    /// `n[1-2]`.
    pub(super) nodes: String,
    /// Where its script runs.
    pub(super) batch_host: String,
    /// What the script said when a process ended.
    pub(super) comment: String,
}

impl Job {
    /// Reads `KEY=VALUE` words; a comment is a line of its own, and may hold anything.
    pub(super) fn read(said: &str) -> Option<Self> {
        let mut job = Self::default();
        for line in said.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("Comment=") {
                comment.trim().clone_into(&mut job.comment);
                continue;
            }
            for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
                let field = match key {
                    "JobName" => &mut job.name,
                    "JobState" => &mut job.state,
                    "Reason" => &mut job.reason,
                    "ExitCode" => &mut job.exit,
                    "NodeList" => &mut job.nodes,
                    "BatchHost" => &mut job.batch_host,
                    _ => continue,
                };
                // Paths further down may look like anything.
                if field.is_empty() {
                    value.clone_into(field);
                }
            }
        }
        (!job.state.is_empty()).then_some(job)
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == "RUNNING"
    }

    /// `pending (Resources)`.
    pub(super) fn waiting(&self) -> String {
        let state = self.state.to_lowercase();
        match self.reason.as_str() {
            "" | "None" => state,
            reason => format!("{state} ({reason})"),
        }
    }

    /// How job `id` ended, where it has, or why it never will begin.
    pub(super) fn end(&self, id: &str) -> Option<End> {
        let tell = |text: &str| Some(End::new(format!("job {id} {text}")));
        match self.state.as_str() {
            // Its script is ending what is left of it.
            "RUNNING" if self.is_ending() => {
                let end = tell(&format!("ended: {}", self.ended()));
                match self.comment.contains("time limit") && self.comment.starts_with(ENDS) {
                    true => end.map(|end| end.hint(TIME_HINT)),
                    false => end,
                }
            }
            "RUNNING" | "CONFIGURING" | "RESIZING" | "SUSPENDED" | "STOPPED" | "SIGNALING"
            | "STAGE_OUT" | "REQUEUED" | "REQUEUE_FED" | "RESV_DEL_HOLD" => None,
            "PENDING" | "REQUEUE_HOLD" | "SPECIAL_EXIT" => self.dead_end(id),
            "CANCELLED" => tell("was cancelled, and not by scalebeam").map(|end| {
                end.hint("ask who cancelled it: `sacct` names the user where accounting is kept")
            }),
            "TIMEOUT" | "DEADLINE" => tell("reached its time limit").map(|end| end.hint(TIME_HINT)),
            "NODE_FAIL" | "BOOT_FAIL" => tell("lost a node")
                .map(|end| end.hint("see `sinfo -R`; `run --resume` goes on with the rest")),
            "PREEMPTED" | "REVOKED" => tell("was preempted")
                .map(|end| end.hint("use a partition or qos that is not; `run --resume` goes on")),
            "OUT_OF_MEMORY" => tell("ran out of memory").map(|end| {
                end.hint("use fewer replicas, a smaller model, or nodes with more memory")
            }),
            // A script that ends by itself has said why; Slurm says of a job that is gone who ended it.
            "COMPLETING" if !self.is_ending() && self.exit == "0:0" => {
                tell("is being ended, and not by scalebeam")
                    .map(|end| end.hint(format!("see `sacct --jobs {id}` for why")))
            }
            _ => tell(&format!("ended: {}", self.ended())),
        }
    }

    /// Whether its script has said why it ends.
    fn is_ending(&self) -> bool {
        named(&self.comment).is_some() || self.comment.starts_with(ENDS)
    }

    /// It as one of the queue, where it has not left that.
    pub(super) fn queued(&self, id: &str) -> Option<Queued> {
        const LIVES: [&str; 12] = [
            "PENDING",
            "CONFIGURING",
            "RUNNING",
            "COMPLETING",
            "SUSPENDED",
            "STOPPED",
            "RESIZING",
            "SIGNALING",
            "STAGE_OUT",
            "REQUEUED",
            "REQUEUE_HOLD",
            "SPECIAL_EXIT",
        ];
        let lives = LIVES.contains(&self.state.as_str());
        lives.then(|| Queued { id: id.to_owned(), state: self.state.clone() })
    }

    /// What may lie in the folder `scratch` of its nodes, in words: its script said so, or was ended before it could
    /// clear up.
    pub(super) fn left(&self, id: &str, scratch: &str) -> Option<String> {
        if let (_, Some(place)) = apart(&self.comment) {
            return Some(format!("job {id} could not clear up: remove {place}"));
        }
        const CUT: [&str; 7] = [
            "CANCELLED",
            "TIMEOUT",
            "DEADLINE",
            "NODE_FAIL",
            "PREEMPTED",
            "REVOKED",
            "OUT_OF_MEMORY",
        ];
        let has_begun = !matches!(self.nodes.as_str(), "" | "(null)");
        let was_killed = self.exit.split_once(':').is_some_and(|(_, signal)| signal != "0");
        let was_cut = has_begun && (was_killed || CUT.contains(&self.state.as_str()));
        was_cut.then(|| cut(id, scratch, &self.nodes))
    }

    fn dead_end(&self, id: &str) -> Option<End> {
        let (_, hint) = DEAD_ENDS.iter().find(|(reason, _)| self.reason.contains(reason))?;
        Some(End::new(format!("job {id} will not begin: {}", self.waiting())).hint(*hint))
    }

    /// What ended it: the process that its script named, else its own status.
    fn ended(&self) -> String {
        if let Some(said) = named(&self.comment) {
            return said;
        }
        if let Some(why) = apart(&self.comment).0.strip_prefix(ENDS) {
            return why.to_owned();
        }
        let (status, signal) = self.exit.split_once(':').unwrap_or((&self.exit, "0"));
        match (status.parse().ok(), signal.parse().ok()) {
            (Some(0), Some(0)) => "its script ended by itself".to_owned(),
            (_, Some(signal)) if signal != 0 => {
                format!("its script ended with {}", Exit { code: None, signal: Some(signal) })
            }
            (code, _) => format!("its script ended with {}", Exit::of_shell(code)),
        }
    }
}

/// What a comment says beside the path that was left, and that path. A log line that it quotes may say much.
fn apart(comment: &str) -> (&str, Option<&str>) {
    match comment.rsplit_once(LEFT).filter(|(_, place)| place.starts_with('/')) {
        Some((said, place)) => (said, Some(place)),
        None => (comment, None),
    }
}

/// That job `id` was ended before it could clear up, in words.
pub(super) fn cut(id: &str, scratch: &str, nodes: &str) -> String {
    format!("job {id} was ended before it could clear up: see whether {scratch} is left on {nodes}")
}

/// `process one/0/serve ended with signal 9 (SIGKILL): LAST LINE`, from what the job script says.
pub(super) fn named(said: &str) -> Option<String> {
    let (said, _) = apart(said);
    let (before, rest) = said.split_once(" ended with status ")?;
    let process = before.strip_prefix("process ")?;
    let (status, line) = rest.split_once(':').unwrap_or((rest, ""));
    let exit = Exit::of_shell(Some(status.trim().parse().ok()?));
    let line = match line.trim() {
        "" => String::new(),
        line => format!("; last log line: {line}"),
    };
    Some(format!("process {process} ended with {exit}{line}"))
}

/// The id in what `sbatch --parsable` prints: `17`, or `17;cluster`.
pub(super) fn submitted(said: &str) -> Option<String> {
    let line = said.lines().rfind(|l| !l.trim().is_empty())?;
    let id = line.split(';').next()?.trim();
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.to_owned())
}

/// The value of `key` in what `scontrol show config` prints.
pub(super) fn setting(said: &str, key: &str) -> Option<String> {
    let pairs = said.lines().filter_map(|line| line.split_once('='));
    let found = pairs.map(|(k, v)| (k.trim(), v.trim())).find(|(k, _)| *k == key);
    found.map(|(_, value)| value.to_owned()).filter(|v| !v.is_empty())
}

/// Addresses by node, from `scontrol --oneliner show node`.
pub(super) fn addresses(said: &str) -> BTreeMap<String, String> {
    let of = |line: &str| {
        let value = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key));
        Some((value("NodeName=")?.to_owned(), value("NodeAddr=")?.to_owned()))
    };
    said.lines().filter_map(of).collect()
}

/// A job that has not left the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) id: String,
    pub(super) state: String,
}

impl Queued {
    /// Whether it may have processes. Of one whose nodes are being made ready the script has not begun.
    pub(super) fn has_processes(&self) -> bool {
        !matches!(self.state.as_str(), "PENDING" | "CONFIGURING")
    }
}

/// Rows of `squeue --format=%A|%T|%j` of jobs with that very name.
pub(super) fn queue(said: &str, name: &str) -> Vec<Queued> {
    let of = |line: &str| {
        let mut cells = line.trim().splitn(3, '|');
        let (id, state, found) = (cells.next()?, cells.next()?, cells.next()?);
        (found == name).then(|| Queued { id: id.to_owned(), state: state.to_owned() })
    };
    said.lines().filter_map(of).collect()
}

/// Ids of steps whose name `is_it`, from rows of `squeue --steps --format=%i|%j`. Those of the script itself and of what
/// a site does beside it have no number.
pub(super) fn steps(said: &str, is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let rows = said.lines().filter_map(|line| line.trim().split_once('|'));
    let is_step = |id: &str| id.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok());
    rows.filter(|(id, name)| is_step(id) && is_it(name)).map(|(id, _)| id.to_owned()).collect()
}

/// A row of `sacct --format=JobName,State,ExitCode` of the job with that very name.
pub(super) fn accounted(said: &str, name: &str) -> Option<Job> {
    let of = |line: &str| {
        let mut cells = line.trim().split('|');
        let (found, state, exit) = (cells.next()?, cells.next()?, cells.next()?);
        // `CANCELLED by 1000`.
        let state = state.split_whitespace().next()?.to_owned();
        (found == name).then(|| Job { state, exit: exit.to_owned(), ..Job::default() })
    };
    said.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scontrol show job` of Slurm 22.05, but for the fields that a case sets.
    fn job(state: &str, reason: &str, exit: &str, comment: &str) -> Job {
        let said = format!(
            "JobId=17 JobName=pair-1\n   UserId=root(0) GroupId=root(0) MCS_label=N/A\n   \
             JobState={state} Reason={reason} Dependency=(null)\n   \
             Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={exit}\n   \
             AllocNode:Sid=vm:1 ReqNodeList=n[1-2] ExcNodeList=(null)\n   NodeList=n[1-2]\n   \
             BatchHost=n1\n   Command=/r/JobState=X NodeList=no/p.sbatch\n   WorkDir=/\n   \
             Comment={comment}\n   Power=\n"
        );
        Job::read(&said).unwrap()
    }

    fn end(state: &str, reason: &str, exit: &str, comment: &str) -> Option<String> {
        job(state, reason, exit, comment).end("17").map(|end| end.reason)
    }

    #[test]
    fn a_job_is_read_by_its_words() {
        let job = job("RUNNING", "None", "0:0", "");
        assert!(job.is_running() && job.end("17").is_none());
        assert_eq!((job.name.as_str(), job.nodes.as_str()), ("pair-1", "n[1-2]"));
        assert_eq!(job.batch_host, "n1");
        assert_eq!(Job::read("slurm_load_jobs error"), None);
    }

    #[test]
    fn a_waiting_job_says_why_and_whether_that_ends() {
        assert_eq!(job("PENDING", "Resources", "0:0", "").waiting(), "pending (Resources)");
        assert_eq!(job("CONFIGURING", "None", "0:0", "").waiting(), "configuring");
        assert_eq!(end("PENDING", "Priority", "0:0", ""), None);
        let said = end("PENDING", "PartitionTimeLimit", "0:0", "").unwrap();
        assert_eq!(said, "job 17 will not begin: pending (PartitionTimeLimit)");
    }

    #[test]
    fn how_a_job_ended_is_told_by_its_state_its_comment_or_its_status() {
        let said = "process pair/1/serve ended with status 137: ready: 3";
        let cases = [
            end("FAILED", "NonZeroExitCode", "137:0", said),
            end("FAILED", "NonZeroExitCode", "3:0", "of somebody else"),
            end("COMPLETING", "None", "0:9", ""),
            end("COMPLETED", "None", "0:0", ""),
            end("COMPLETING", "None", "0:0", "go"),
            end("CANCELLED", "None", "0:15", said),
            end("TIMEOUT", "TimeLimit", "0:0", ""),
            end("NODE_FAIL", "NodeDown", "0:0", ""),
        ];
        let cases: Vec<String> = cases.into_iter().map(Option::unwrap).collect();
        insta::assert_snapshot!(cases.join("\n"), @r"
        job 17 ended: process pair/1/serve ended with signal 9 (SIGKILL); last log line: ready: 3
        job 17 ended: its script ended with status 3
        job 17 ended: its script ended with signal 9 (SIGKILL)
        job 17 ended: its script ended by itself
        job 17 is being ended, and not by scalebeam
        job 17 was cancelled, and not by scalebeam
        job 17 reached its time limit
        job 17 lost a node
        ");
    }

    #[test]
    fn a_job_whose_script_ends_what_is_left_has_ended_already() {
        let died = "process pair/1/serve ended with status 137: ready: 3";
        let want = "job 17 ended: process pair/1/serve ended with signal 9 (SIGKILL); last log line: ready: 3";
        assert_eq!(end("RUNNING", "None", "0:0", died).as_deref(), Some(want));
        let near = end("RUNNING", "None", "0:0", "ends: its time limit is near");
        assert_eq!(near.as_deref(), Some("job 17 ended: its time limit is near"));
        for said in ["", "go", "end", "a comment of the site's"] {
            assert_eq!(end("RUNNING", "None", "0:0", said), None, "{said}");
        }
    }

    #[test]
    fn what_may_be_left_on_nodes_is_named_where_nobody_cleared_up() {
        let left = |state: &str, comment: &str| {
            job(state, "None", "0:0", comment).left("17", "/tmp/sb-1-17")
        };
        assert_eq!(left("COMPLETED", "end"), None);
        assert_eq!(left("FAILED", "process pair/1/serve ended with status 1: x"), None);
        let died = "process pair/1/serve ended with status 1: x; left: /tmp/sb-1-17 on n[1-2]";
        for said in ["; left: /tmp/sb-1-17 on n[1-2]", died] {
            let told = left("FAILED", said).unwrap();
            assert_eq!(told, "job 17 could not clear up: remove /tmp/sb-1-17 on n[1-2]");
        }
        assert_eq!(left("FAILED", "process pair/1/serve ended with status 1: bytes left: 3"), None);
        let why = named(died).unwrap();
        assert!(why.ends_with("ended with status 1; last log line: x"), "{why}");
        let cut =
            "job 17 was ended before it could clear up: see whether /tmp/sb-1-17 is left on n[1-2]";
        for state in ["CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL"] {
            assert_eq!(left(state, "end").as_deref(), Some(cut), "{state}");
        }
    }

    #[test]
    fn a_job_that_no_list_shows_is_queued_until_it_has_ended() {
        for (state, is_there) in [
            ("PENDING", true),
            ("RUNNING", true),
            ("COMPLETING", true),
            ("SUSPENDED", true),
            ("COMPLETED", false),
            ("CANCELLED", false),
            ("FAILED", false),
        ] {
            let queued = job(state, "None", "0:0", "").queued("17");
            assert_eq!(queued.is_some(), is_there, "{state}");
        }
    }

    #[test]
    fn an_id_is_a_number_or_nothing() {
        assert_eq!(submitted("17\n").as_deref(), Some("17"));
        assert_eq!(submitted("sbatch: a note\n18;bench\n").as_deref(), Some("18"));
        assert_eq!(submitted("Submitted batch job"), None);
        assert_eq!(submitted(""), None);
    }

    #[test]
    fn nodes_have_addresses_and_the_cluster_a_name() {
        let nodes =
            "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=vm\nNodeName=n2 NodeAddr=n2\n";
        let found = addresses(nodes);
        assert_eq!(found["n1"], "10.0.0.1");
        assert_eq!(found["n2"], "n2");
        let config = "Configuration data as of now\nClusterName             = bench\nX = \n";
        assert_eq!(setting(config, "ClusterName").as_deref(), Some("bench"));
        assert_eq!(setting(config, "X"), None);
    }

    #[test]
    fn only_jobs_of_that_very_name_are_ours() {
        let said = "17|RUNNING|pair-1\n18|PENDING|pair-10\n19|COMPLETING|pair-1\n";
        let ids: Vec<String> = queue(said, "pair-1").into_iter().map(|j| j.id).collect();
        assert_eq!(ids, ["17", "19"]);
        let said = "17.0|entry\n17.1|worker\n17.2|sh\n17.batch|batch\n17.3|worker\n";
        assert_eq!(steps(said, |name| name == "worker"), ["17.1", "17.3"]);
        assert_eq!(steps(said, |_| true), ["17.0", "17.1", "17.2", "17.3"]);
        assert_eq!(steps(said, |name| name == "infra"), [""; 0]);
        let job = accounted("pair-10|FAILED|1:0\npair-1|CANCELLED by 1000|0:0\n", "pair-1");
        assert_eq!(job.unwrap().state, "CANCELLED");
        assert_eq!(accounted("", "pair-1"), None);
    }
}

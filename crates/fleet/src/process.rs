//! Processes of this machine: who they are, which are ours, and how they are signalled.
//!
//! **Invariant:** no signal is sent to a pid or a group on the strength of its number alone. A pid is
//! ours only if its start time is the recorded one, in the same boot; a group only if its leader, a
//! recorded member, or a process with this run's marker is in it (a group's number cannot be given
//! away while it has members). Zombies are not alive.

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Variable that marks every process with the run that started it.
pub const RUN_MARKER: &str = "SCALEBEAM_RUN";
/// Variable that marks every process with its id in the plan.
pub const PROCESS_MARKER: &str = "SCALEBEAM_PROCESS";
/// Variable that tells runs of the same name apart: the run directory.
pub const DIR_MARKER: &str = "SCALEBEAM_RUN_DIR";

/// One process, beyond doubt within one boot: pids are reused, start times of one pid are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The pid.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_ticks: u64,
}

impl Member {
    /// Whether this very process exists and is not a zombie.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && s.is_alive())
    }

    /// Sends `signal` to this very process; false where it is gone.
    ///
    /// The pid is pinned by a descriptor before its start time is looked at, so it cannot be reused
    /// in between.
    pub(crate) fn signal(self, signal: Signal) -> std::io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 1) else { return Ok(false) };
        let pinned = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pinned) => pinned,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match rustix::process::pidfd_send_signal(&pinned, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// A process that was started: the leader of its own group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The pid.
    pub pid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// The boot in which all of this holds.
    pub boot_id: String,
}

impl Identity {
    /// Reads who `pid` is, zombie or not.
    ///
    /// # Errors
    /// When `/proc` cannot be read or has no such pid.
    pub fn of(pid: i32) -> std::io::Result<Self> {
        let stat = stat(pid).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::NotFound, format!("no /proc/{pid}/stat"))
        })?;
        Ok(Self { pid, pgid: stat.pgid, start_ticks: stat.start_ticks, boot_id: boot_id()? })
    }

    /// The process itself.
    pub const fn leader(&self) -> Member {
        Member { pid: self.pid, start_ticks: self.start_ticks }
    }
}

/// What `/proc/PID/stat` says, as far as it is needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// One letter: `R`, `S`, `Z`, ...
    pub state: char,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
}

impl Stat {
    /// Not a zombie, not dead.
    pub const fn is_alive(self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads `/proc/PID/stat`.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses, so count from its last one.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let ppid = fields.next()?.parse().ok()?;
    let pgid = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(16)?.parse().ok()?;
    Some(Stat { ppid, pgid, state, start_ticks })
}

/// The id of this boot; pids and start times mean nothing beyond it.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// All processes of this machine at one look.
#[derive(Debug)]
pub struct Table(BTreeMap<i32, Stat>);

impl Table {
    /// Looks.
    pub fn read() -> Self {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Self(BTreeMap::new()) };
        Self(
            entries
                .flatten()
                .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
                .filter_map(|pid| Some((pid, stat(pid)?)))
                .collect(),
        )
    }

    /// Members of group `pgid` that are alive.
    pub fn group(&self, pgid: i32) -> Vec<Member> {
        self.0
            .iter()
            .filter(|(_, s)| s.pgid == pgid && s.is_alive())
            .map(|(&pid, s)| Member { pid, start_ticks: s.start_ticks })
            .collect()
    }

    /// Members of group `pgid` and everything that descends from them or from `leader`, alive.
    pub fn family(&self, leader: i32, pgid: i32) -> Vec<Member> {
        let mut found: BTreeSet<i32> = self
            .0
            .iter()
            .filter(|(pid, s)| **pid == leader || s.pgid == pgid)
            .map(|(&pid, _)| pid)
            .collect();
        loop {
            let more: Vec<i32> = self
                .0
                .iter()
                .filter(|(pid, s)| !found.contains(pid) && found.contains(&s.ppid))
                .map(|(&pid, _)| pid)
                .collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        found
            .into_iter()
            .filter_map(|pid| Some((pid, self.0.get(&pid)?)))
            .filter(|(_, s)| s.is_alive())
            .map(|(pid, s)| Member { pid, start_ticks: s.start_ticks })
            .collect()
    }

    /// The group of `pid` at this look.
    pub fn group_of(&self, pid: i32) -> Option<i32> {
        self.0.get(&pid).map(|s| s.pgid)
    }
}

/// What is looked for in environments: processes of one run in one run directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Run id.
    pub run: String,
    /// The run directory, as it was when the process was started.
    pub dir: String,
}

/// A living process that carries a [`Mark`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The process.
    pub member: Member,
    /// Its group.
    pub pgid: i32,
    /// The plan's id of the process that it descends from.
    pub process: String,
    /// Which mark.
    pub mark: Mark,
}

/// Living processes of this user that carry one of `marks`.
///
/// A program that overwrites its environment (setproctitle) escapes this look, not the group's.
pub fn marked(marks: &BTreeSet<Mark>) -> Vec<Marked> {
    marked_where(|mark| marks.contains(mark))
}

/// The same, and those of whatever run wrote into `dir`.
pub(crate) fn marked_or_in(marks: &BTreeSet<Mark>, dir: &Path) -> Vec<Marked> {
    let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let dir = real(dir);
    marked_where(|mark| marks.contains(mark) || real(Path::new(&mark.dir)) == dir)
}

fn marked_where(is_meant: impl Fn(&Mark) -> bool) -> Vec<Marked> {
    let user = rustix::process::geteuid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        if !entry.metadata().is_ok_and(|m| m.uid() == user) {
            continue;
        }
        // The start time first: if the pid is reused between the reads, it does not fit any more.
        let Some(before) = stat(pid).filter(|s| s.is_alive()) else { continue };
        let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
        let Some((mark, process)) = read_mark(&environ) else { continue };
        if is_meant(&mark) {
            let member = Member { pid, start_ticks: before.start_ticks };
            found.push(Marked { member, pgid: before.pgid, process, mark });
        }
    }
    found
}

fn read_mark(environ: &[u8]) -> Option<(Mark, String)> {
    let value = |name: &str| {
        environ.split(|b| *b == 0).find_map(|pair| {
            let rest = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            String::from_utf8(rest.to_vec()).ok()
        })
    };
    let mark = Mark { run: value(RUN_MARKER)?, dir: value(DIR_MARKER)? };
    Some((mark, value(PROCESS_MARKER)?))
}

/// Sends `signal` to group `pgid`; false where it has no members. The caller has verified it.
pub(crate) fn signal_group(pgid: i32, signal: Signal) -> std::io::Result<bool> {
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let Some(group) = Pid::from_raw(pgid).filter(|_| pgid > 1 && pgid != own) else {
        return Ok(false);
    };
    match rustix::process::kill_process_group(group, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What `pid` is called, for a message: its command line, shortened.
pub(crate) fn command_of(pid: i32) -> Option<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> =
        raw.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    if words.is_empty() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        return Some(name.trim().to_owned());
    }
    Some(words.join(" ").chars().take(80).collect())
}

/// Who listens on `port`, as `NAME (pid N)`, where `/proc` tells.
pub(crate) fn listener(port: u16) -> Option<String> {
    let inodes: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| listening_inodes(&text, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    for pid in pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        let Ok(links) = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))
        else {
            continue;
        };
        let holds = links
            .flatten()
            .filter_map(|l| std::fs::read_link(l.path()).ok())
            .any(|target| inodes.contains(&*target.to_string_lossy()));
        if holds {
            return Some(format!("{} (pid {pid})", command_of(pid)?));
        }
    }
    None
}

fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1)?.rsplit(':').next()?;
            let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
            listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        })
        .collect()
}

/// Whether `addr:port` can be listened on right now.
///
/// # Errors
/// `AddrInUse` where somebody listens; anything else is what the kernel said.
pub(crate) fn try_listen(addr: &str, port: u16) -> std::io::Result<()> {
    // The standard library sets SO_REUSEADDR, so connections that linger do not count.
    std::net::TcpListener::bind((addr, port)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_do_not_shift_the_fields() {
        let text = "42 (a) b (c)) S 1 40 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        let want = Stat { ppid: 1, pgid: 40, state: 'S', start_ticks: 987_654 };
        assert_eq!(parse_stat(text), Some(want));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_reused_pid_is_not_the_recorded_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.leader().is_alive());
        let other = Member { pid: me.pid, start_ticks: me.start_ticks - 1 };
        assert!(!other.is_alive());
        // Were it sent, this test would end here.
        assert!(!other.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn own_group_and_init_are_out_of_reach() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(!signal_group(own, Signal::KILL).unwrap());
        assert!(!signal_group(1, Signal::KILL).unwrap());
        assert!(!signal_group(0, Signal::KILL).unwrap());
    }

    #[test]
    fn marks_need_all_three_variables() {
        let environ = b"A=1\0SCALEBEAM_RUN=r\0SCALEBEAM_RUN_DIR=/d\0SCALEBEAM_PROCESS=x/0/serve\0";
        let (mark, process) = read_mark(environ).unwrap();
        assert_eq!(
            (mark.run.as_str(), mark.dir.as_str(), process.as_str()),
            ("r", "/d", "x/0/serve")
        );
        assert_eq!(read_mark(b"SCALEBEAM_RUN=r\0SCALEBEAM_PROCESS=x\0"), None);
    }

    #[test]
    fn a_listener_is_named() {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(listener(port).unwrap().contains(&format!("(pid {})", std::process::id())));
        assert_eq!(
            try_listen("127.0.0.1", port).unwrap_err().kind(),
            std::io::ErrorKind::AddrInUse
        );
        drop(socket);
        assert_eq!(listener(port), None);
        try_listen("127.0.0.1", port).unwrap();
    }
}

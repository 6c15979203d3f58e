//! Hosts of their own: network namespaces on a bridge, each with a real sshd, and a controller beside
//! them. What is started on a host binds its addresses; a link can be cut and a host can be killed.

use crate::support::{Said, scalebeam, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const SSHD: &str = "/usr/sbin/sshd";

static LABS: AtomicU32 = AtomicU32::new(0);

/// A controller and some hosts, which end with this value.
pub(crate) struct Hosts {
    dir: tempfile::TempDir,
    /// What the names of its namespaces begin with.
    prefix: String,
    hosts: Vec<Host>,
    /// What was mounted.
    disks: Vec<PathBuf>,
    /// Whether each has processes of its own, so that none sees those of another.
    are_apart: bool,
}

struct Host {
    name: &'static str,
    sshd: Child,
}

/// Runs `words` as root's shell would; panics with what it said.
#[track_caller]
pub(crate) fn sh(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// Fills the disk under `dir`, which is a small one, by this file.
pub(crate) fn fill(dir: &Path) -> PathBuf {
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    // It ends with an error: that is its purpose.
    let _ = std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 64 << 20), &mut file);
    filler
}

/// The data-plane address of host number `n`.
fn addr(n: usize) -> String {
    format!("10.77.0.{}", n + 1)
}

impl Hosts {
    /// Hosts of these names, each known to ssh by its name.
    pub(crate) fn new(names: &[&'static str]) -> Self {
        Self::with(names, false)
    }

    /// The same, for what looks for its own among all processes of a machine, as Ray does.
    pub(crate) fn apart(names: &[&'static str]) -> Self {
        Self::with(names, true)
    }

    fn with(names: &[&'static str], are_apart: bool) -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("sb{}-{number}-", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let mut lab = Self { dir, prefix, hosts: Vec::new(), disks: Vec::new(), are_apart };
        let ctl = lab.namespace("ctl");
        sh(&format!(
            "ip netns add {ctl}; in='ip -n {ctl}'; $in link set lo up; $in link add br0 type bridge; \
             $in addr add 10.77.0.254/24 dev br0; $in link set br0 up"
        ));
        let dir = lab.dir.path();
        sh(&format!("ssh-keygen -q -t ed25519 -N '' -f {}/key", dir.display()));
        sh(&format!("mkdir -p /run/sshd {}/bin", dir.display()));
        lab.write_ssh(names);
        for (n, name) in names.iter().enumerate() {
            lab.start_host(n, name);
        }
        lab
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The site's ssh: the real program, with a configuration of its own.
    fn write_ssh(&self, names: &[&str]) {
        let dir = self.dir.path().display();
        let mut config = format!(
            "Host *\n  User root\n  IdentityFile {dir}/key\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {dir}/known_hosts\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n"
        );
        for (n, name) in names.iter().enumerate() {
            config.push_str(&format!("Host {name}\n  HostName {}\n", addr(n)));
        }
        std::fs::write(self.path("ssh_config"), config).unwrap();
        let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {dir}/ssh_config \"$@\"\n");
        std::fs::write(self.path("bin/ssh"), ssh).unwrap();
        sh(&format!("chmod 755 {dir}/bin/ssh"));
    }

    fn start_host(&mut self, n: usize, name: &'static str) {
        let (ns, ctl) = (self.namespace(name), self.namespace("ctl"));
        let (addr, dir) = (addr(n), self.dir.path().display().to_string());
        sh(&format!(
            "ip netns add {ns}; ip -n {ctl} link add v{n} type veth peer name eth0 netns {ns}; \
             ip -n {ctl} link set v{n} master br0 up; ip -n {ns} link set lo up; \
             ip -n {ns} addr add {addr}/24 dev eth0; ip -n {ns} link set eth0 up"
        ));
        let key = format!("{dir}/host_{name}");
        sh(&format!(
            "ssh-keygen -q -t ed25519 -N '' -f {key}; echo \"{addr} $(cut -d' ' -f1,2 {key}.pub)\" \
             >> {dir}/known_hosts"
        ));
        // A home of its own: what this machine's shells do when they start is none of the test's business.
        let config = format!(
            "Port 22\nListenAddress {addr}\nHostKey {key}\nAuthorizedKeysFile {dir}/key.pub\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             PidFile none\nMaxStartups 100\nSetEnv TMPDIR={0} HOME={0}\n",
            self.tmp(name).display()
        );
        std::fs::create_dir(self.tmp(name)).unwrap();
        std::fs::write(self.path(&format!("sshd_{name}")), config).unwrap();
        let sshd = self.start_sshd(name);
        self.hosts.push(Host { name, sshd });
        let ready = || self.on(&ctl_of(self), &["ssh", name, "true"]).code == Some(0);
        wait_for("sshd", ready);
    }

    fn start_sshd(&self, name: &str) -> Child {
        let config = self.path(&format!("sshd_{name}"));
        let log = std::fs::File::create(self.path(&format!("sshd_{name}.log"))).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name)]);
        if self.are_apart {
            command.args(["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]);
        }
        command
            .args([SSHD, "-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Runs `words` in namespace `ns` with the site's ssh on PATH.
    fn on(&self, ns: &str, words: &[&str]) -> Said {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", ns]).args(words).env("PATH", self.search_path());
        command.stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs `words` on host `name`.
    pub(crate) fn on_host(&self, name: &str, words: &[&str]) -> Said {
        self.on(&self.namespace(name), words)
    }

    /// Runs `script` on host `name` over ssh.
    pub(crate) fn ssh(&self, name: &str, script: &str) -> Said {
        self.on(&ctl_of(self), &["ssh", name, script])
    }

    /// Starts `words` on host `name`.
    pub(crate) fn start_on(&self, name: &str, words: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name)]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn search_path(&self) -> String {
        format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap())
    }

    /// `scalebeam` in the controller's namespace.
    pub(crate) fn scalebeam(&self) -> Command {
        let program = scalebeam();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace("ctl")]).arg(program.get_program());
        command.env_remove("SCALEBEAM_RUN").env("NO_COLOR", "1").env("COLUMNS", "110");
        command.env("PATH", self.search_path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn say(&self, args: &[&str]) -> Said {
        self.scalebeam().args(args).output().unwrap().into()
    }

    /// Cuts or mends the link of host `name`.
    pub(crate) fn link(&self, name: &str, state: &str) {
        let n = self.hosts.iter().position(|h| h.name == name).unwrap();
        sh(&format!("ip -n {} link set v{n} {state}", self.namespace("ctl")));
    }

    /// Another key on host `name` than the controller knows.
    pub(crate) fn change_host_key(&mut self, name: &str) {
        let key = self.path(&format!("host_{name}"));
        sh(&format!("rm {0} {0}.pub; ssh-keygen -q -t ed25519 -N '' -f {0}", key.display()));
        let n = self.hosts.iter().position(|h| h.name == name).unwrap();
        let _ = self.hosts[n].sshd.kill();
        let _ = self.hosts[n].sshd.wait();
        self.hosts[n].sshd = self.start_sshd(name);
        let log = self.path(&format!("sshd_{name}.log"));
        wait_for("sshd", || std::fs::read_to_string(&log).unwrap().contains("listening"));
    }

    /// Host `name` loses its power: nothing of it runs, and it answers to nobody.
    pub(crate) fn lose(&self, name: &str) {
        self.link(name, "down");
        let ns = self.namespace(name);
        // A process may end by itself between being listed and being ended.
        sh(&format!(
            "while pids=$(ip netns pids {ns}) && [ -n \"$pids\" ]; do kill -9 $pids 2>/dev/null || true; done"
        ));
    }

    /// It is there again, with nothing running but sshd.
    pub(crate) fn revive(&mut self, name: &str) {
        let n = self.hosts.iter().position(|h| h.name == name).unwrap();
        let _ = self.hosts[n].sshd.wait();
        self.link(name, "up");
        self.hosts[n].sshd = self.start_sshd(name);
        wait_for("sshd", || self.ssh(name, "true").code == Some(0));
    }

    /// A disk of 4 MiB at `dir`, which is made; gone with this value.
    pub(crate) fn small_disk(&mut self, dir: PathBuf) {
        std::fs::create_dir_all(&dir).unwrap();
        sh(&format!("mount -t tmpfs -o size=4m tmpfs {}", dir.display()));
        self.disks.push(dir);
    }

    /// A disk with these mount options for the temporary files of host `name`, which nobody else sees.
    pub(crate) fn disk_of(&self, name: &str, options: &str) {
        let sshd = self.hosts.iter().find(|h| h.name == name).unwrap().sshd.id();
        let dir = self.tmp(name);
        sh(&format!("nsenter -t {sshd} -m mount -t tmpfs -o {options} tmpfs {}", dir.display()));
    }

    /// Where temporary files of host `name` go: hosts share this machine's file system.
    pub(crate) fn tmp(&self, name: &str) -> PathBuf {
        self.path(&format!("tmp_{name}"))
    }

    /// The same as the host sees it, whose disk it may be.
    pub(crate) fn tmp_seen_there(&self, name: &str) -> PathBuf {
        let sshd = self.hosts.iter().find(|h| h.name == name).unwrap().sshd.id();
        let dir = self.tmp(name);
        let there = Path::new("/proc").join(sshd.to_string()).join("root");
        let there = there.join(dir.strip_prefix("/").unwrap());
        // A host that is gone sees nothing.
        if there.is_dir() { there } else { dir }
    }

    /// Command lines of what runs on host `name`, whoever started it, apart from sshd and what holds it.
    pub(crate) fn processes(&self, name: &str) -> Vec<String> {
        let out =
            Command::new("ip").args(["netns", "pids", &self.namespace(name)]).output().unwrap();
        let pids = String::from_utf8(out.stdout).unwrap();
        let command = |pid: &str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned())
        };
        let commands = pids.split_whitespace().filter_map(command);
        let is_host = |line: &String| {
            ["sshd", SSHD, "unshare "].iter().any(|program| line.starts_with(program))
        };
        commands.filter(|line| !line.is_empty() && !is_host(line)).collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.hosts.iter().map(|h| h.name)
    }

    /// What is left on the hosts of what was written there.
    pub(crate) fn remote_files(&self) -> Vec<PathBuf> {
        let dirs =
            self.hosts.iter().map(|h| std::fs::read_dir(self.tmp_seen_there(h.name)).unwrap());
        dirs.flat_map(|dir| dir.map(|e| e.unwrap().path())).collect()
    }
}

fn ctl_of(hosts: &Hosts) -> String {
    hosts.namespace("ctl")
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            let _ = host.sshd.kill();
            let _ = host.sshd.wait();
        }
        for name in self.hosts.iter().map(|h| h.name).chain(["ctl"]) {
            // Sessions of a cut link would keep the namespace.
            let ns = self.namespace(name);
            let end = format!("ip netns pids {ns} | xargs -r kill -9; ip netns del {ns}");
            let _ = Command::new("sh").args(["-c", &end]).output();
        }
        for disk in &self.disks {
            let _ = Command::new("umount").arg("-l").arg(disk).output();
        }
    }
}

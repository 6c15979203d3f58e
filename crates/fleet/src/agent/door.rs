//! Ways to an agent: a process here whose standard input and output are the agent's.

use crate::host::Shell;
use rustix::fs::{OFlags, fcntl_setfl};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// Where an agent is asked.
#[derive(Debug, Clone)]
pub struct Door {
    shell: Shell,
    script: String,
}

/// One open way; it ends with this value.
#[derive(Debug)]
pub struct Way {
    child: Child,
    host: String,
    is_over: bool,
}

impl Door {
    pub(crate) const fn new(shell: Shell, script: String) -> Self {
        Self { shell, script }
    }

    /// Opens a way. Whether somebody answers is known once they do.
    ///
    /// # Errors
    /// When no process can be started for it.
    pub fn open(&self) -> Result<(ChildStdin, ChildStdout, Way), String> {
        let fail = |e: std::io::Error| format!("cannot start {}: {e}", self.shell.name());
        let mut command = self.shell.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(fail)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let way = Way { child, host: self.shell.name().to_owned(), is_over: false };
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err("a process without input and output".to_owned());
        };
        // The agent speaks first: the shell reads no more than its script.
        input.write_all(self.script.as_bytes()).and_then(|()| input.flush()).map_err(fail)?;
        Ok((input, output, way))
    }
}

impl Way {
    /// What it said last, once it is over: why it broke.
    pub fn last_words(&mut self) -> Option<String> {
        self.end();
        let (mut stderr, mut said) = (self.child.stderr.take()?, Vec::new());
        // A connection that ssh keeps for later ones may hold it open: only what is there is read.
        fcntl_setfl(&stderr, OFlags::NONBLOCK).ok()?;
        let _ = stderr.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(format!("the connection to {} broke: {last}", self.host))
    }

    fn end(&mut self) {
        // The number of a group that is over may be another's by now.
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        crate::host::end_group(Some(self.child.id()));
        let _ = self.child.wait();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.end();
    }
}

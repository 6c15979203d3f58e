//! A shell that stays: what it runs lives as long as it does.

use super::{Ran, Shell, ShellError, end_group};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};

impl Shell {
    /// Starts `script`, and goes on as soon as it has said its first line, which comes back without a status. It then
    /// lives until it ends by itself. One that ends before it has said anything comes back with its status.
    ///
    /// # Errors
    /// As [`Shell::run`], with `limit` for the first line.
    pub(crate) async fn hold(&self, script: &str, limit: Duration) -> Result<Ran, ShellError> {
        let mut child = self.start(Stdio::piped(), Stdio::piped())?;
        let leader = child.id();
        let said = first_line(&mut child, script);
        let Ok(said) = tokio::time::timeout(limit, said).await else {
            end_group(leader);
            return Err(ShellError::TimedOut { host: self.name().to_owned(), limit });
        };
        let pipe = |source| ShellError::Pipe { host: self.name().to_owned(), source };
        let (line, rest) = said.map_err(pipe)?;
        if !line.is_empty() {
            tokio::spawn(keep(child, rest));
            return Ok(Ran { status: None, stdout: line, stderr: String::new() });
        }
        let out = child.wait_with_output().await.map_err(pipe)?;
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        self.check(out.status, &stderr)?;
        Ok(Ran { status: out.status.code(), stdout: line, stderr })
    }
}

/// What a shell says first to `script`, empty where it ends before, and where it goes on.
async fn first_line(
    child: &mut Child,
    script: &str,
) -> std::io::Result<(String, Option<BufReader<ChildStdout>>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read everything says why by its status.
        let _ = stdin.write_all(script.as_bytes()).await;
        let _ = stdin.shutdown().await;
    }
    let mut lines = child.stdout.take().map(BufReader::new);
    let mut line = String::new();
    if let Some(lines) = &mut lines {
        lines.read_line(&mut line).await?;
    }
    Ok((line, lines))
}

/// Takes what a shell says until it ends: a full pipe would stop it.
async fn keep(child: Child, lines: Option<BufReader<ChildStdout>>) {
    let reading = async {
        let Some(mut lines) = lines else { return };
        let mut chunk = [0; 4096];
        while lines.read(&mut chunk).await.is_ok_and(|len| len > 0) {}
    };
    let _ = tokio::join!(child.wait_with_output(), reading);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_stays_says_one_line_and_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let (go, done) = (dir.path().join("go"), dir.path().join("done"));
        let script = format!(
            "echo first; until [ -e {0} ]; do echo more; echo more >&2; sleep 0.01; done; echo x > {1}",
            go.display(),
            done.display()
        );
        let ran = Shell::Here.hold(&script, LIMIT).await.unwrap();
        let expected = Ran { status: None, stdout: "first\n".into(), stderr: String::new() };
        assert_eq!(ran, expected);
        std::fs::write(&go, "").unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !done.exists() {
            tick.tick().await;
        }
    }

    #[tokio::test]
    async fn what_ends_at_once_says_why() {
        let ran = Shell::Here.hold("echo no room >&2; exit 73", LIMIT).await.unwrap();
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(73), "no room\n"));
    }
}

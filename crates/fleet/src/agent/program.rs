//! The program that is carried: which file, how large, and what it runs on.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file on this machine that runs as an agent elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProgram {
    path: String,
    size: u64,
    digest: String,
    /// `Linux x86_64`, where it is the program that runs here; another one is tried wherever it is sent.
    system: Option<&'static str>,
}

impl AgentProgram {
    /// Reads `own`, the program of the user, else `exe`, the one that runs.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(own: Option<&Path>, exe: &Path) -> Result<Self, String> {
        let path = std::path::absolute(own.unwrap_or(exe));
        let path = path.map_err(|e| format!("{}: {e}", exe.display()))?;
        let fail = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
        let (size, digest) = digest(&path).map_err(fail)?;
        let system = if own.is_some() { None } else { this_system() };
        Ok(Self { path: path.to_string_lossy().into_owned(), size, digest, system })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Its length in bytes.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Its SHA-256 in hexadecimal digits.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether it can run on what `uname -sm` calls `system`.
    pub(crate) fn fits(&self, system: &str) -> Result<(), String> {
        match self.system {
            Some(own) if own != system => Err(format!(
                "it is {system}, and this scalebeam is for {own}; name a build for it by \
                 telemetry.agent in the file"
            )),
            _ => Ok(()),
        }
    }
}

/// As `uname -sm` says it; absent where that has several names.
fn this_system() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some("Linux x86_64"),
        ("linux", "aarch64") => Some("Linux aarch64"),
        _ => None,
    }
}

fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let (mut chunk, mut size) = (vec![0; 1 << 20], 0);
    loop {
        let len = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size += len as u64;
    }
    let hex = hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Ok((size, hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, "abc").unwrap();
        let program = AgentProgram::read(Some(&path), Path::new("/nowhere")).unwrap();
        assert_eq!(program.size(), 3);
        assert!(program.digest().starts_with("ba7816bf8f01cfea414140de5dae2223"));
        assert_eq!(program.fits("SunOS sun4u"), Ok(()), "the user knows");
        let why = AgentProgram::read(None, Path::new("/nowhere/x")).unwrap_err();
        assert!(why.contains("/nowhere/x"), "{why}");
    }

    #[test]
    fn another_machine_is_refused_with_the_cure() {
        let program = AgentProgram { system: Some("Linux x86_64"), ..read_this() };
        assert_eq!(program.fits("Linux x86_64"), Ok(()));
        let why = program.fits("Linux aarch64").unwrap_err();
        assert!(why.contains("Linux aarch64") && why.contains("telemetry.agent"), "{why}");
    }

    fn read_this() -> AgentProgram {
        AgentProgram::read(None, &std::env::current_exe().unwrap()).unwrap()
    }
}

//! The version of the form of a run directory, and what can read it.
//!
//! Minor versions add; a reader of the same major reads them all and ignores what it does not know.
//! A major version changes the meaning of something; a reader refuses other majors.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the form of a run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreFormat {
    /// Raised when an older reader would misread a newer run.
    pub major: u32,
    /// Raised when something was added that an older reader may ignore.
    pub minor: u32,
}

impl StoreFormat {
    /// What this version writes.
    pub const CURRENT: Self = Self { major: 1, minor: 3 };

    /// Whether this version can read a run of format `self`.
    ///
    /// # Errors
    /// Names the release that can.
    pub fn check_readable(self) -> Result<(), VersionError> {
        let readers = READERS.iter().find(|(major, _)| *major == self.major).map(|(_, who)| *who);
        match self.major.cmp(&Self::CURRENT.major) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(VersionError::Newer { found: self }),
            std::cmp::Ordering::Less => {
                Err(VersionError::Older { found: self, readers: readers.unwrap_or("an older one") })
            }
        }
    }
}

impl fmt::Display for StoreFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Releases of scalebeam that read a major format, for the text of a refusal.
const READERS: &[(u32, &str)] = &[(1, "0.1.0 or later")];

/// A run of a form that this version does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Written by a newer scalebeam.
    #[error(
        "the run has format {found}, and this scalebeam reads up to {}.x; \
         a newer scalebeam wrote it, so use that one, or its `scalebeam export`",
        StoreFormat::CURRENT.major
    )]
    Newer {
        /// Format of the run.
        found: StoreFormat,
    },
    /// Written by an older scalebeam in a form that is no longer read.
    #[error(
        "the run has format {found}, which is no longer read; scalebeam {readers} can read and export it"
    )]
    Older {
        /// Format of the run.
        found: StoreFormat,
        /// Releases that read it.
        readers: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_minor_is_read_and_a_newer_major_is_refused_with_what_can_read_it() {
        assert_eq!(StoreFormat { major: 1, minor: 99 }.check_readable(), Ok(()));
        let newer = StoreFormat { major: 2, minor: 3 }.check_readable().unwrap_err().to_string();
        assert!(newer.contains("format 2.3") && newer.contains("newer scalebeam"), "{newer}");
        let older = StoreFormat { major: 0, minor: 1 }.check_readable().unwrap_err().to_string();
        assert!(older.contains("no longer read"), "{older}");
    }

    #[test]
    fn the_current_format_has_a_reader() {
        assert!(READERS.iter().any(|(major, _)| *major == StoreFormat::CURRENT.major));
    }
}

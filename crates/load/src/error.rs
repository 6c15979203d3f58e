//! What can keep a load from being run at all. A request that fails is no error but a record.

use std::io;
use std::path::PathBuf;

/// Why a phase or a probe could not be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A target's URL cannot be used.
    #[error("'{url}' is no endpoint: {why}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The plan names more targets than the endpoint has.
    #[error("the plan needs {want} targets, the endpoint has {have}")]
    Targets {
        /// Targets of the endpoint.
        have: usize,
        /// Targets of the plan.
        want: u16,
    },
    /// A header's name or value holds what HTTP does not allow. The value may be a secret.
    #[error("'{name}' is no header that can be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// The API key holds what a header cannot.
    #[error("the API key holds characters that a header cannot carry")]
    ApiKey,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The CA file is not usable.
    #[error("CA file {}: {why}", file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The tokenizer is not usable.
    #[error("tokenizer {}: {why}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The tokenizer has too few words that are one token each.
    #[error("tokenizer {}: only {found} words are one token each, 50 are needed", path.display())]
    Words {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// A probe got no answer.
    #[error("no answer from {url}{path}: {why}")]
    Probe {
        /// The server.
        url: String,
        /// What was asked for.
        path: String,
        /// What happened instead.
        why: String,
    },
    /// The system gave a load thread nothing to wait with.
    #[error("cannot make what a load thread waits with")]
    Reactor(#[source] io::Error),
    /// The system gave no thread.
    #[error("cannot start a load thread")]
    Thread(#[source] io::Error),
    /// A load thread ended in a panic: a defect of scalebeam.
    #[error("a load thread panicked")]
    Panicked,
}

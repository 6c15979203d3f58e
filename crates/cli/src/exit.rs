//! Exit codes, which scripts and pipelines rely on, and the failures behind them.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Measured, and all expectations hold; or the command did what it was asked.
    Ok,
    /// Measured, and an expectation failed.
    ExpectationFailed,
    /// The command line or the file is wrong.
    Usage,
    /// Measured, but a point is not trustworthy.
    NotTrustworthy,
    /// Could not deploy, or reach the deployment.
    Deployment,
    /// A defect of scalebeam, or of the machine under it.
    Internal,
    /// Interrupted; everything was taken down.
    Interrupted,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Ok,
        Self::ExpectationFailed,
        Self::Usage,
        Self::NotTrustworthy,
        Self::Deployment,
        Self::Internal,
        Self::Interrupted,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::ExpectationFailed => 1,
            Self::Usage => 2,
            Self::NotTrustworthy => 3,
            Self::Deployment => 4,
            Self::Internal => 5,
            Self::Interrupted => 130,
        }
    }

    /// What another scalebeam says that ends with `code`, where it is one of these.
    pub(crate) fn of_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| i32::from(status.code()) == code)
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

/// Why a command could not do what it was asked: the message, its causes, and the next step.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The user's command line or file is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { status: Status::Usage, message: message.into(), hint: None }
    }

    /// A deployment could not be brought up or reached.
    pub(crate) fn deployment(message: impl Into<String>) -> Self {
        Self { status: Status::Deployment, message: message.into(), hint: None }
    }

    /// Something that should not happen: a full disk, a defect.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { status: Status::Internal, message: message.into(), hint: None }
    }

    /// Adds the next step.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit status.
    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// What happened, without the next step.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What the user reads.
    pub(crate) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\n\nhint: {hint}", self.message),
            None => self.message.clone(),
        }
    }
}

/// The error and its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

impl From<scalebeam_record::RecordError> for Failure {
    fn from(error: scalebeam_record::RecordError) -> Self {
        use scalebeam_record::RecordError as E;
        let text = chain(&error);
        match error {
            E::NotARun { .. } => {
                Self::usage(text).hint("name a run directory, as runs/20260101T000000Z-name")
            }
            E::Version { .. } | E::ExperimentChanged { .. } | E::InUse { .. } => Self::usage(text),
            E::Damaged { .. } => Self::usage(text)
                .hint("the file was changed or lost after it was written; run --resume measures that trial again once its directory is removed"),
            _ => Self::usage(text).hint("look at the disk and at who may write there"),
        }
    }
}

impl From<scalebeam_fleet::FleetError> for Failure {
    fn from(error: scalebeam_fleet::FleetError) -> Self {
        let failure = Self::deployment(chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<scalebeam_fleet::render::RenderError> for Failure {
    fn from(error: scalebeam_fleet::render::RenderError) -> Self {
        Self::usage(chain(&error)).hint(error.hint)
    }
}

impl From<scalebeam_load::LoadError> for Failure {
    fn from(error: scalebeam_load::LoadError) -> Self {
        let text = chain(&error);
        match error {
            scalebeam_load::LoadError::CaFile { .. } => Self::usage(text)
                .hint("ca_file is a PEM file with certificates, relative to the experiment file"),
            _ => Self::deployment(text),
        }
    }
}

impl From<scalebeam_report::ReportError> for Failure {
    fn from(error: scalebeam_report::ReportError) -> Self {
        Self::internal(chain(&error))
    }
}

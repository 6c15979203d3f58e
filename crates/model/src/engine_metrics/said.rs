//! What instances said while a measurement ran, look by look.

use super::{Part, Word};
use crate::plan::Role;
use crate::units::Nanos;
use std::collections::BTreeMap;

/// What one instance said at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// What the instance is called: its role and number, or its address.
    pub instance: String,
    /// Whether it computes, or stands before what does.
    pub part: Part,
    /// What it does for a request.
    pub role: Role,
    /// When it was asked, and when its answer was there: what it said was true at some instant in between.
    pub asked_at: Nanos,
    /// See `asked_at`.
    pub answered_at: Nanos,
    /// Its numbers, of counters since its start; absent where it did not answer.
    pub numbers: Option<BTreeMap<Word, f64>>,
}

//! Statistics: small, pure, each with its reference and its assumption.

pub mod bootstrap;
pub mod quantile;
pub mod student;

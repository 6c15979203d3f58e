//! Statistics: small, pure, each with its reference and its assumption.

pub mod binomial;
pub mod bootstrap;
pub mod contrast;
pub mod histogram;
pub mod monotone;
pub mod order;
pub mod percentile;
pub mod quantile;
pub mod rank;
pub mod scaling;
pub mod student;

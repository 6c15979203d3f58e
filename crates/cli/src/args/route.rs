//! `scalebeam route`: where it listens, and its workers.

use clap::Args;
use std::net::IpAddr;

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// A prefill worker (may be repeated)
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) prefill: Vec<String>,
    /// A decode worker (may be repeated)
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) decode: Vec<String>,
    /// Threads that pass answers on
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
}

//! Flags of `scalebeam advise`.

use super::compare::{portion, share};
use clap::{ArgGroup, Args, ValueEnum};
use scalebeam_model::cost::Terms;
use scalebeam_model::units::parse_rate;
use std::path::PathBuf;

/// Runs that were measured, and what is wanted.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("demand").required(true).args(["rate", "users"])))]
pub(crate) struct AdviseArgs {
    /// Run directories; all their deployments, or RUN:DEPLOYMENT for one of them
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// What must be met: a bound, as "ttft.p99 <= 450ms", or a preset, as mlperf-llama2-70b. Repeat for more
    #[arg(long, required = true, value_name = "BOUND|PRESET")]
    pub(crate) slo: Vec<String>,
    /// Requests a second to carry, as 30/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Users to carry, each with one request in flight at all times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) users: Option<u32>,
    /// A file of prices, with the keys that an experiment file has under prices. Goes before the prices of the runs
    #[arg(long, value_name = "FILE")]
    pub(crate) prices: Option<PathBuf>,
    /// The terms that GPUs and machines are had on [default: 'plan' of the prices, or on_demand]
    #[arg(long, value_enum, value_name = "TERMS")]
    pub(crate) plan: Option<TermsArg>,
    /// Carry so much more than is asked, as 20%
    #[arg(long, default_value = "20%", value_name = "SHARE", value_parser = headroom)]
    pub(crate) headroom: f64,
    /// Price tokens also with copies used to this share of what they carry, as 40%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) utilisation: Option<f64>,
    /// Look at these loads only; needed where loads ask different things
    #[arg(long, value_name = "NAME")]
    pub(crate) load: Vec<String>,
    /// Weigh even what was not asked the same; what differs is told
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// On which terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum TermsArg {
    /// Rented by the hour
    OnDemand,
    /// Rented for a long time ahead
    Reserved,
    /// Rented until somebody pays more
    Spot,
    /// Bought: power is added
    Owned,
}

impl From<TermsArg> for Terms {
    fn from(arg: TermsArg) -> Self {
        match arg {
            TermsArg::OnDemand => Self::OnDemand,
            TermsArg::Reserved => Self::Reserved,
            TermsArg::Spot => Self::Spot,
            TermsArg::Owned => Self::Owned,
        }
    }
}

/// Reads `30/s`, or `30`.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) => Err(format!("'{text}' is no rate above zero; write it as 30/s")),
        Err(_) => parse_rate(text).map_err(|e| e.to_string()),
    }
}

/// So much more, from nothing to ten times.
fn headroom(text: &str) -> Result<f64, String> {
    const MOST: f64 = 10.0;
    portion(text).filter(|more| (0.0..=MOST).contains(more)).ok_or_else(|| {
        format!("'{text}' is no head-room from 0 to 1000 %; write it as 20% or as 0.2")
    })
}

#[cfg(test)]
mod tests {
    use super::{headroom, rate};

    #[test]
    fn a_rate_may_have_its_unit_and_headroom_may_be_none() {
        assert_eq!(rate("30"), Ok(30.0));
        assert_eq!(rate("30/s"), Ok(30.0));
        assert_eq!(rate("90/min"), Ok(1.5));
        for wrong in ["0", "-3", "nan", "inf", "many", "3 apples"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(headroom("0%"), Ok(0.0));
        assert_eq!(headroom("20%"), Ok(0.2));
        assert_eq!(headroom("100%"), Ok(1.0));
        for wrong in ["2000%", "-1%", "nan", "some"] {
            assert!(headroom(wrong).is_err(), "{wrong}");
        }
    }
}

//! Flags of `scalebeam compare`.

use clap::{Args, ValueEnum};

/// Two deployments that were measured.
#[derive(Debug, Args)]
#[command(
    override_usage = "scalebeam compare [OPTIONS] A B\n       scalebeam compare [OPTIONS] A... -- B..."
)]
pub(crate) struct CompareArgs {
    /// Run directory that is the baseline, then what is held against it; RUN:DEPLOYMENT where a run has several
    /// deployments; or result files of another tool
    #[arg(value_name = "A", required = true)]
    pub(crate) first: Vec<String>,
    /// What is held against all that stand before --, which are repeats of one thing, as these are of another
    #[arg(value_name = "B", last = true)]
    pub(crate) second: Vec<String>,
    /// Differences below this do not matter, as 3%: what surely lies within it is called alike
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) margin: Option<f64>,
    /// End with exit code 1 where B is surely worse, or surely different, in any metric
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) fail_on: Option<FailOn>,
    /// Compare even what was not asked the same; its numbers are marked
    #[arg(long)]
    pub(crate) force: bool,
    /// Metrics to compare, separated by commas, as output_tps,ttft.p99 [default: output_tps_per_gpu,
    /// output_tps, ttft.p50, tpot.p50, e2e.p95]
    #[arg(long, value_delimiter = ',', value_name = "METRIC")]
    pub(crate) metrics: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What makes a pipeline stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// B is worse
    Regression,
    /// B is worse or better
    Difference,
}

/// Reads `3%` or `0.03`.
pub(super) fn portion(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => Some(percent.trim_end().parse::<f64>().ok()? / 100.0),
        None => text.parse().ok(),
    }
}

/// The same, more than nothing and less than one.
pub(super) fn share(text: &str) -> Result<f64, String> {
    portion(text)
        .filter(|s| *s > 0.0 && *s < 1.0)
        .ok_or_else(|| format!("'{text}' is no share between 0 and 1; write it as 3% or as 0.03"))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_a_percentage_or_a_part_of_one() {
        for (text, want) in [("3%", 0.03), ("3 %", 0.03), ("0.5%", 0.005), ("0.03", 0.03)] {
            assert!((share(text).unwrap() - want).abs() < 1e-12, "{text}");
        }
        for text in ["3", "0", "-1%", "100%", "%", "three", "nan"] {
            assert!(share(text).unwrap_err().contains("write it as 3%"), "{text}");
        }
    }
}

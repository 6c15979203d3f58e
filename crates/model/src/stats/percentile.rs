//! Percentiles by name: `p50`, `p99.9`, `median`.

/// Of a hundred. `p999` is the 99.9th, as many tools write it; `p99.9` is the same.
pub fn percentile_of(statistic: &str) -> Option<f64> {
    match statistic {
        "median" => return Some(50.0),
        "p999" => return Some(99.9),
        _ => {}
    }
    let digits = statistic.strip_prefix('p')?;
    let is_plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let percentile = is_plain.then(|| digits.parse::<f64>().ok())??;
    (0.0..=100.0).contains(&percentile).then_some(percentile)
}

/// `p99.9` of 99.9.
pub fn name_of(percentile: f64) -> String {
    format!("p{percentile}")
}

/// A metric and its statistic: `ttft.p99.9` is `ttft` and `p99.9`.
pub fn split(name: &str) -> (&str, Option<&str>) {
    let Some((head, tail)) = name.rsplit_once('.') else { return (name, None) };
    if let Some((base, whole)) = head.rsplit_once('.')
        && tail.bytes().all(|b| b.is_ascii_digit())
        && percentile_of(whole).is_some()
    {
        return (base, Some(&name[base.len() + 1..]));
    }
    (head, Some(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_as_they_are_written() {
        for (text, want) in [
            ("p50", Some(50.0)),
            ("median", Some(50.0)),
            ("p99.9", Some(99.9)),
            ("p999", Some(99.9)),
            ("p87.5", Some(87.5)),
            ("p0", Some(0.0)),
            ("p100", Some(100.0)),
            ("p100.5", None),
            ("p9999", None),
            ("p", None),
            ("p-5", None),
            ("p5e1", None),
            ("p5.", None),
            ("p.5", None),
            ("p1.2.3", None),
            ("mean", None),
        ] {
            assert_eq!(percentile_of(text), want, "{text}");
            if let Some(p) = want {
                assert_eq!(percentile_of(&name_of(p)), Some(p));
            }
        }
    }

    #[test]
    fn a_name_is_a_metric_and_its_statistic() {
        for (name, want) in [
            ("rps", ("rps", None)),
            ("ttft.p95", ("ttft", Some("p95"))),
            ("ttft_ms.p99.9", ("ttft_ms", Some("p99.9"))),
            ("speedup.output_tps", ("speedup", Some("output_tps"))),
            ("slowdown.ttft.p99.5", ("slowdown.ttft", Some("p99.5"))),
            ("ttft.mean.9", ("ttft.mean", Some("9"))),
        ] {
            assert_eq!(split(name), want, "{name}");
        }
    }
}

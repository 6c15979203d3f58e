//! Pages of `/metrics` in Prometheus' text form, as far as a count is wanted from them.
//!
//! **Invariants:** no text is an error: a line that is no sample is passed over, and what no line says is
//! absent.

/// One sample of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    value: f64,
}

/// Requests that the engine has put back in the queue to make room, since it was started: vLLM's
/// preemptions, SGLang's retractions. Absent where the page has neither.
pub fn preemptions(page: &str) -> Option<f64> {
    // Engines of one page count for themselves; the ranks of an SGLang server all count the same.
    let vllm = values(page, &["vllm:num_preemptions_total", "vllm:num_preemptions"])
        .reduce(|sum, value| sum + value);
    let sglang = values(
        page,
        &["sglang:num_retracted_requests_total", "sglang_num_retracted_requests_total"],
    );
    vllm.or(sglang.reduce(f64::max))
}

/// Key-value bytes that the engine was sent since it was started, as vLLM's NixlConnector counts them.
/// Absent where the page does not say.
pub fn received_kv_bytes(page: &str) -> Option<f64> {
    values(page, &["vllm:nixl_bytes_transferred_sum"]).reduce(|sum, value| sum + value)
}

/// Requests that the engine has answered since it was started. Absent where the page does not say.
pub fn answered(page: &str) -> Option<f64> {
    values(page, &["vllm:request_success_total", "vllm:request_success"])
        .reduce(|sum, value| sum + value)
}

fn values<'a>(page: &'a str, names: &'a [&'a str]) -> impl Iterator<Item = f64> + 'a {
    let samples = page.lines().filter_map(sample);
    samples.filter(|s| names.contains(&s.name) && s.value.is_finite()).map(|s| s.value)
}

/// `name{label="value"} 1.5 1700000000000`, of which labels and time may be absent.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let rest = if rest.starts_with('{') { after_labels(rest)? } else { rest };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, value })
}

/// What follows the brace that closes the labels; one in a quoted value does not.
fn after_labels(text: &str) -> Option<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '}' if !is_quoted => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_of_several_engines_are_summed_and_those_of_ranks_are_not() {
        let vllm = "# HELP vllm:num_preemptions Preempted.\n# TYPE vllm:num_preemptions counter\n\
            vllm:num_preemptions_total{engine=\"0\",model_name=\"a } \\\" b\"} 3.0\n\
            vllm:num_preemptions_total{engine=\"1\"} 4 1700000000000\n\
            vllm:num_preemptions_created{engine=\"0\"} 1.7e9\n";
        assert_eq!(preemptions(vllm), Some(7.0));
        let sglang = "sglang:num_retracted_reqs{tp_rank=\"0\"} 9\n\
            sglang:num_retracted_requests_total{tp_rank=\"0\"} 2\n\
            sglang:num_retracted_requests_total{tp_rank=\"1\"} 2\n";
        assert_eq!(preemptions(sglang), Some(2.0));
        assert_eq!(preemptions("vllm:num_preemptions_total 0"), Some(0.0));
    }

    #[test]
    fn bytes_and_answers_of_all_ranks_are_summed() {
        let page = "vllm:nixl_bytes_transferred_bucket{engine=\"0\",le=\"2048.0\"} 1.0\n\
            vllm:nixl_bytes_transferred_count{engine=\"0\"} 2.0\n\
            vllm:nixl_bytes_transferred_sum{engine=\"0\"} 8.11008e+06\n\
            vllm:nixl_bytes_transferred_sum{engine=\"1\"} 1.0\n\
            vllm:request_success_total{engine=\"0\",finished_reason=\"stop\"} 3.0\n\
            vllm:request_success_total{engine=\"0\",finished_reason=\"length\"} 2.0\n";
        assert_eq!(received_kv_bytes(page), Some(8_110_081.0));
        assert_eq!(answered(page), Some(5.0));
        assert_eq!((received_kv_bytes(""), answered("")), (None, None));
    }

    #[test]
    fn what_no_line_says_is_absent() {
        for page in [
            "",
            "<html>vllm:num_preemptions_total</html>",
            "vllm:num_preemptions_total",
            "vllm:num_preemptions_total{engine=\"0\" 3",
            "vllm:num_preemptions_total NaN",
            "# vllm:num_preemptions_total 3",
            "other:vllm:num_preemptions_total 3",
        ] {
            assert_eq!(preemptions(page), None, "{page}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_an_error(page in ".*", tail in "[ {}\"\\\\a-z0-9#\n]{0,80}") {
            let _ = preemptions(&page);
            let _ = preemptions(&format!("vllm:num_preemptions_total{tail}"));
        }
    }
}

//! Pages of `/metrics` in Prometheus' text form, sample by sample.
//!
//! **Invariants:** no text is an error: a line that is no sample is passed over, and what no line says is
//! absent. A value that is no finite number is no sample: a gauge of `NaN` says nothing.

/// No engine counts as far; below it, what is added up over a page stays finite.
const LARGEST: f64 = 1e290;

/// One sample of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Its name, as `vllm:num_requests_running`.
    pub name: &'a str,
    /// What stands between the braces.
    labels: &'a str,
    /// Finite, and far from the end of what a number holds.
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// Labels with their values, both as written: an escaped quote stays escaped.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        Labels(self.labels)
    }

    /// The value of the label called `name`.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.labels().find(|(label, _)| *label == name).map(|(_, value)| value)
    }
}

/// The samples of a page, in its order.
pub fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample).filter(|s| s.value.abs() < LARGEST)
}

/// `name{label="value"} 1.5 1700000000000`, of which labels and time may be absent.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => inside.split_at_checked(end_of_labels(inside)?)?,
        None => ("", rest),
    };
    let rest = rest.strip_prefix('}').unwrap_or(rest);
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// Where the brace is that closes the labels; one in a quoted value does not.
fn end_of_labels(inside: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in inside.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '}' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// What is left of `a="1",b="2"`.
struct Labels<'a>(&'a str);

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_once('=')?;
        let value = rest.trim_start().strip_prefix('"')?;
        let end = end_of_value(value)?;
        self.0 = &value[end + 1..];
        Some((name.trim_matches(|c: char| c == ',' || c.is_whitespace()), &value[..end]))
    }
}

/// Where the quote is that closes a value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts<'a> = (&'a str, Vec<(&'a str, &'a str)>, f64);

    fn read(line: &str) -> Option<Parts<'_>> {
        samples(line).next().map(|s| (s.name, s.labels().collect(), s.value))
    }

    #[test]
    fn a_sample_has_a_name_labels_and_a_value() {
        for (line, want) in [
            ("up 1", ("up", vec![], 1.0)),
            ("  up{} 1.5e3 1700000000000", ("up", vec![], 1_500.0)),
            ("a:b_total{x=\"1\",y=\"two\"} 3", ("a:b_total", vec![("x", "1"), ("y", "two")], 3.0)),
            ("a{ x = \"1\", } 0", ("a", vec![("x", "1")], 0.0)),
            ("a{x=\"} \\\" , y=\"} 4", ("a", vec![("x", "} \\\" , y=")], 4.0)),
            ("a{x=\"\\\\\"} -2", ("a", vec![("x", "\\\\")], -2.0)),
            ("a_bucket{le=\"+Inf\"} 7 # {id=\"x\"} 0.1", ("a_bucket", vec![("le", "+Inf")], 7.0)),
        ] {
            assert_eq!(read(line), Some(want), "{line}");
        }
        let page = "a{x=\"1\",y=\"2\"} 1";
        let sample = samples(page).next().unwrap();
        assert_eq!((sample.label("y"), sample.label("z")), (Some("2"), None));
    }

    #[test]
    fn what_is_no_sample_is_passed_over() {
        for line in [
            "",
            "# TYPE up gauge",
            "up",
            "up NaN",
            "up +Inf",
            "up 1e300",
            "up{a=\"1\" 3",
            "up{a=\"1} 3",
            "up one",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        assert_eq!(samples("# HELP up Up.\r\nup 1\r\n\r\ndown 0\r\n").count(), 2);
    }

    proptest! {
        #[test]
        fn no_text_is_an_error(page in ".*", tail in "[ {}\"\\\\a-z0-9#=,\n]{0,80}") {
            for text in [page.clone(), format!("vllm:num_preemptions_total{tail}"), format!("a{{{tail}")] {
                for sample in samples(&text) {
                    prop_assert!(sample.value.is_finite());
                    prop_assert!(sample.labels().count() <= text.len());
                }
            }
        }

        #[test]
        fn what_was_written_is_read(
            name in "[a-z_:][a-z0-9_:]{0,12}",
            labels in prop::collection::vec(("[a-z_]{1,6}", "[^\"\\\\\n\r]{0,8}"), 0..4),
            value in -1e12f64..1e12,
        ) {
            let written: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            let line = format!("{name}{{{}}} {value:?}", written.join(","));
            let read = samples(&line).next().unwrap();
            prop_assert_eq!((read.name, read.value), (name.as_str(), value));
            let pairs: Vec<(String, String)> =
                read.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(pairs, labels);
        }
    }
}

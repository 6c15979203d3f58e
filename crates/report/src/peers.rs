//! What other tools would have said of the same requests: text for a terminal, JSON in their own form.

use crate::number;
use crate::text::{item, line};
use scalebeam_model::peers::{Peer, Row};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The measured requests of one trial under a tool's definitions.
#[derive(Debug, Clone)]
pub struct Redefined {
    /// Deployment name.
    pub deployment: String,
    /// Load name.
    pub load: String,
    /// Level label.
    pub level: String,
    /// From 1.
    pub trial: u32,
    /// What the tool would have said.
    pub rows: Vec<Row>,
}

/// The trials under the definitions of `peer`, and in what these differ from ours.
pub fn redefined(peer: &Peer, trials: &[Redefined], width: usize) -> String {
    let mut out = String::new();
    line(&mut out, &format!("As {} says it", peer.tool));
    for trial in trials {
        let Redefined { deployment, load, level, trial: number, rows } = trial;
        out.push('\n');
        line(&mut out, &format!("{deployment}/{load}/{level}, trial {number}"));
        for row in rows {
            item(&mut out, &format!("{} ({}):", shown(row.key), row.unit), &values(row), width);
        }
    }
    out.push('\n');
    line(&mut out, "Its definitions");
    for quantity in peer.quantities {
        item(&mut out, &format!("{}:", shown(quantity.key)), quantity.formula, width);
    }
    out.push('\n');
    line(&mut out, "How it differs from ours");
    for text in peer.differs {
        item(&mut out, "-", text, width);
    }
    out
}

/// A key with a place for the statistic.
fn shown(key: &str) -> String {
    key.replace("{}", "*").replace('/', ".")
}

fn values(row: &Row) -> String {
    let mut out = String::new();
    for (statistic, value) in &row.values {
        let value = value.map_or_else(|| number::ABSENT.to_owned(), number::plain);
        let comma = if out.is_empty() { "" } else { ", " };
        let statistic = statistic.replace('/', ".");
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}{}", format!("{statistic} {value}").trim_start());
    }
    out
}

/// The same with every digit, each trial under the tool's own keys.
pub fn redefined_json(peer: &Peer, trials: &[Redefined]) -> Value {
    let of = |t: &Redefined| {
        json!({
            "deployment": t.deployment,
            "load": t.load,
            "level": t.level,
            "trial": t.trial,
            "values": peer.json(&t.rows),
        })
    };
    json!({
        "definitions": peer.name,
        "tool": peer.tool,
        "sources": peer.sources,
        "differs": peer.differs,
        "trials": trials.iter().map(of).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::peers;

    #[test]
    fn every_value_and_every_difference_is_shown() {
        let peer = peers::find("vllm").unwrap();
        let trial = Redefined {
            deployment: "d".into(),
            load: "l".into(),
            level: "c8".into(),
            trial: 2,
            rows: vec![
                Row { key: "completed", unit: "requests", values: vec![("", Some(7.0))] },
                Row {
                    key: "{}_ttft_ms",
                    unit: "ms",
                    values: vec![("mean", Some(1_234.5)), ("p99", None)],
                },
            ],
        };
        let text = redefined(peer, std::slice::from_ref(&trial), 100);
        assert!(text.contains("d/l/c8, trial 2\n  completed (requests): 7.00\n"), "{text}");
        assert!(text.contains("  *_ttft_ms (ms): mean 1,234, p99 n/a\n"), "{text}");
        for quantity in peer.quantities {
            assert!(text.contains(&shown(quantity.key)), "{}", quantity.key);
        }
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
        let json = redefined_json(peer, &[trial]);
        assert_eq!(json["trials"][0]["values"]["mean_ttft_ms"], 1_234.5);
        assert!(json["trials"][0]["values"].get("p99_ttft_ms").is_none());
    }
}

//! `selftest`: what the instrument is worth on this machine.

use crate::args::SelftestArgs;
use crate::exit::{Failure, Status};
use crate::selftest::beside::Others;
use crate::selftest::case::{self, Case};
use crate::selftest::floor;
use crate::selftest::summary::Row;
use crate::selftest::table::{self, Trust};
use crate::selftest::{Reader, measure, runs, usage};
use crate::{printer, settings};
use indicatif::{ProgressBar, ProgressStyle};
use scalebeam_model::units::Nanos;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) fn run(args: &SelftestArgs) -> Result<Status, Failure> {
    let cases = cases(args)?;
    let sockets = cases.iter().map(Case::sockets).max().unwrap_or(0);
    crate::limits::raise_file_limit(sockets)?;
    let rounds = args.rounds.unwrap_or(if args.full {
        5
    } else if args.quick {
        1
    } else {
        3
    });
    let others = others(args)?;
    let before = usage::load_average();
    let rows = measure_all(&cases, rounds, &others)?;
    let machine = Machine { before, after: usage::load_average(), rounds };
    let trust = rows.iter().map(Row::trust).max().unwrap_or(Trust::Invalid);
    if args.json {
        printer::json(&machine.json(&rows, trust))?;
    } else if args.markdown {
        printer::data(&format!("{}\n\n{}", machine.text(), table::markdown(&rows)));
    } else {
        let verdicts = rows.iter().map(Row::verdict);
        let said: Vec<String> = verdicts.chain(table::notes(&rows)).collect();
        let table = table::text(&rows);
        printer::data(&format!("{}\n\n{table}\n{}", machine.text(), said.join("\n")));
    }
    // The full table is for comparing: it has cases that are meant to be too much.
    Ok(if trust == Trust::Invalid && !args.full { Status::NotTrustworthy } else { Status::Ok })
}

fn cases(args: &SelftestArgs) -> Result<Vec<Case>, Failure> {
    if args.full {
        return chosen(&args.case);
    }
    if let Some(n) = args.streams.iter().find(|n| !(1..=MOST_STREAMS).contains(*n)) {
        return Err(Failure::usage(format!("--streams: {n} is not between 1 and {MOST_STREAMS}"))
            .hint("one address has no more ports than that; 10000 is a lot for one machine"));
    }
    let waves = if args.quick { 1 } else { 2 };
    let mut cases: Vec<Case> = args.streams.iter().map(|n| case::paced(*n, waves)).collect();
    cases.push(case::open_loop(if args.quick { 1 } else { 2 }));
    Ok(cases)
}

/// Below the range of ports that a connection may come from, as Linux has it.
const MOST_STREAMS: u32 = 20_000;

fn chosen(names: &[String]) -> Result<Vec<Case>, Failure> {
    let all = case::full();
    if let Some(unknown) = names.iter().find(|n| !all.iter().any(|c| c.name == **n)) {
        let known: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        return Err(Failure::usage(format!("--case: there is no case '{unknown}'"))
            .hint(format!("one of {}", known.join(", "))));
    }
    Ok(all.into_iter().filter(|c| names.is_empty() || names.contains(&c.name)).collect())
}

fn others(args: &SelftestArgs) -> Result<Others, Failure> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = args.beside.iter().find(|client| !seen.insert(&client.name)) {
        return Err(Failure::usage(format!("--beside: two clients are called '{}'", twice.name))
            .hint("NAME=COMMAND gives one of them another name"));
    }
    Ok(Others { clients: args.beside.clone(), limit: args.beside_limit.map(Nanos::from_secs) })
}

fn measure_all(cases: &[Case], rounds: u32, others: &Others) -> Result<Vec<Row>, Failure> {
    let total = cases.iter().map(|c| runs(c, rounds, others)).sum();
    let bar = if printer::is_interactive() { bar(total) } else { ProgressBar::hidden() };
    let tell = |case: &str, reader: Reader| {
        let reader = match reader {
            Reader::Ours => "load client",
            Reader::Raw => "raw reader",
            Reader::Other(i) => &others.clients[i].name,
        };
        bar.set_message(format!("{case}: {reader}"));
        bar.inc(1);
    };
    let rows = cases.iter().map(|case| measure(case, rounds, others, tell)).collect();
    bar.finish_and_clear();
    rows
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("selftest [{bar:30}] {pos}/{len} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    // The machine is being measured: a bar that moves once a second costs nothing.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// The circumstances.
struct Machine {
    before: Option<f64>,
    after: Option<f64>,
    rounds: u32,
}

impl Machine {
    fn text(&self) -> String {
        let load = |l: Option<f64>| l.map_or("n/a".to_owned(), |l| format!("{l:.2}"));
        let rounds = match self.rounds {
            1 => "one round".to_owned(),
            n => format!("medians of {n} rounds"),
        };
        let build = if cfg!(debug_assertions) {
            ", debug build: costs are not those of a release"
        } else {
            ""
        };
        format!(
            "{} on {} cores, load average {} before and {} after, {rounds}{build}",
            settings::TOOL,
            settings::cores(),
            load(self.before),
            load(self.after),
        )
    }

    fn json(&self, rows: &[Row], trust: Trust) -> serde_json::Value {
        let cases = rows.iter().map(|row| {
            json!({
                "trust": row.trust(),
                "verdict": row.verdict(),
                "cpu_per_token_over_raw": row.cpu_ratio(),
                "arrivals_alike": row.arrivals_alike(),
                "measured": row,
            })
        });
        json!({
            "tool": settings::TOOL,
            "debug_build": cfg!(debug_assertions),
            "cores": settings::cores(),
            "load_average_before": self.before,
            "load_average_after": self.after,
            "rounds": self.rounds,
            "trust": trust,
            "floor": floor::of(rows, self.before),
            "cases": cases.collect::<Vec<_>>(),
        })
    }
}

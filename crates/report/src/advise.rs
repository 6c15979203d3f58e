//! Advice in the terminal: what to run, a table of the choices, who is left out, what would change the answer, and
//! what to measure to be surer.

use crate::number;
use crate::table::Grid;
use crate::text::{draw_grid, item, line};
use scalebeam_model::analysis::advise::{
    Advice, BreakEven, Choice, Demand, Moved, Next, PerMtok, Shift,
};

/// The advice as text, its sentences at most `width` columns wide.
pub fn advice(of: &Advice, width: usize) -> String {
    let mut out = String::new();
    line(&mut out, &format!("SLO: {}", of.slo));
    let headroom = percent(of.headroom);
    line(&mut out, &format!("To carry: {}, with {headroom} % head-room", demand(of.demand)));
    out.push('\n');
    match of.best() {
        None => item(&mut out, "", &nothing(of), width),
        Some(best) => {
            for text in answer(of, best) {
                item(&mut out, "", &text, width);
            }
            out.push('\n');
            out.push_str(&draw_grid(&fleets(of)));
            if best.cost_per_hour.is_some() {
                out.push('\n');
                out.push_str(&draw_grid(&tokens(of)));
            }
        }
    }
    let notes = of.choices.iter().flat_map(notes);
    let unfit = of.unfit.iter().map(|u| format!("{}: {}", u.name, u.why));
    let sections = [
        ("What the numbers rest on", notes.collect::<Vec<String>>()),
        ("Cannot be chosen", unfit.collect()),
        ("Left out, since not to be trusted", not_trusted(of)),
        ("Forced, not asked the same", forced(of)),
        ("What would change the answer", changes(of)),
        ("What to measure to be surer", of.next.iter().map(step).collect()),
    ];
    for (title, texts) in sections.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        out.push('\n');
        line(&mut out, title);
        for text in texts {
            item(&mut out, "", &text, width);
        }
    }
    out
}

fn demand(of: Demand) -> String {
    format!("{} {}", number::in_unit(of.value(), ""), of.unit())
}

/// A share as it was given: `20`, `17.5`.
fn percent(share: f64) -> String {
    number::in_unit((share * 1e6).round() / 1e4, "")
}

fn money(of: &Advice, amount: f64) -> String {
    format!("{} {}", number::plain(amount), currency(of))
}

fn currency(of: &Advice) -> &str {
    of.currency.as_deref().unwrap_or("of the currency")
}

fn count(n: u32, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn nothing(of: &Advice) -> String {
    match of.hangs_on_what_is_not_trusted() {
        true => "No answer: only points that are not to be trusted meet the SLO.".to_owned(),
        false if of.unfit.iter().any(|u| u.needs_too_many) => {
            "No answer: what meets the SLO would be more copies than are a plan.".to_owned()
        }
        false => "No answer: no deployment that was measured meets the SLO.".to_owned(),
    }
}

/// What to run, at what price, and how surely.
fn answer(of: &Advice, best: &Choice) -> Vec<String> {
    let mut run = format!("Run {}", count(best.copies, "copy", "copies"));
    run.push_str(&format!(" of {}", best.name));
    if best.gpus > 0 {
        run.push_str(&format!(" ({})", count(best.gpus, "GPU", "GPUs")));
    }
    match (&best.cost_per_hour, best.mtok_at_demand.output) {
        (Some(cost), Some(mtok)) => run.push_str(&format!(
            ": {} an hour, {} for a million output tokens at {}.",
            money(of, cost.point),
            money(of, mtok),
            demand(of.demand)
        )),
        (Some(cost), None) => run.push_str(&format!(": {} an hour.", money(of, cost.point))),
        (None, _) => run.push_str(", by the fewest GPUs, since it has no price."),
    }
    let mut out = vec![run, carried(best)];
    if !of.alike.is_empty() {
        out.push(format!(
            "Its cost cannot be told from that of {}: the intervals of what they carry overlap in copies.",
            of.alike.join(", ")
        ));
    } else if let Some(cost) = &best.cost_per_hour
        && let Some(next) = of.choices.get(1).and_then(|c| Some((c, c.cost_per_hour.as_ref()?)))
    {
        let more = number::plain((next.1.point / cost.point - 1.0) * 100.0);
        out.push(format!("{} would cost {more} % more.", next.0.name));
    }
    out
}

fn carried(best: &Choice) -> String {
    let at = &best.at;
    let rps = &at.rps;
    let sure = match at.sure {
        true => "surely at 95 %",
        false => "though chance may explain it",
    };
    let (low, high) = (number::plain(rps.low), number::plain(rps.high));
    let rate = number::plain(rps.point);
    let met = format!(
        "At {} {} one copy met the SLO, {sure}, and carried {rate} req/s (between {low} and {high}: {})",
        at.load, at.level, rps.method
    );
    match &best.ceiling {
        Some(c) if c.sure => format!("{met}; at {} it surely missed.", c.level),
        Some(c) => format!("{met}; at {} it missed, though chance may explain it.", c.level),
        None => format!("{met}; no higher level missed, so it may carry more."),
    }
}

/// What carries the demand.
fn fleets(of: &Advice) -> Grid {
    let each = match of.demand {
        Demand::Rps(_) => "req/s a copy",
        Demand::Users(_) => "Users a copy",
    };
    let cost = format!("{}/h", of.currency.as_deref().unwrap_or("Cost"));
    let heads = ["Deployment", "At", each, "Copies", "GPUs", "Nodes", "Used %", &cost, "Trust"];
    let row = |c: &Choice| {
        let known = |n: u32| if n > 0 { n.to_string() } else { number::ABSENT.to_owned() };
        vec![
            c.name.clone(),
            format!("{} {}", c.at.load, c.at.level),
            match of.demand {
                Demand::Rps(_) => number::plain(c.at.rps.point),
                Demand::Users(_) => number::in_unit(c.at.users, ""),
            },
            c.copies.to_string(),
            known(c.gpus),
            known(c.nodes),
            number::percent(c.utilisation * 100.0),
            some(c.cost_per_hour.as_ref().map(|cost| cost.point)),
            c.at.trust.name().to_owned(),
        ]
    };
    let is_by_cost = of.best().is_some_and(|best| best.cost_per_hour.is_some());
    let title =
        if is_by_cost { "The least cost first" } else { "The fewest GPUs first" }.to_owned();
    table_of(of, title, heads.map(str::to_owned).to_vec(), 2, row)
}

/// What tokens cost, and how much energy they take.
fn tokens(of: &Advice) -> Grid {
    let mut head = vec!["Deployment", "Output at SLO", "Output"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    head.extend(of.utilisation.map(|u| format!("Output at {} % used", percent(u))));
    head.extend(["Input", "Both", "J/output token"].map(str::to_owned));
    let row = |c: &Choice| {
        let PerMtok { input, output, total } = c.mtok_at_demand;
        let mut cells = vec![c.name.clone(), some(c.mtok_at_slo.output), some(output)];
        cells.extend(of.utilisation.map(|_| some(c.mtok_at_utilisation.and_then(|m| m.output))));
        let joules = c.power.as_ref().and_then(|p| p.joules_per_output_token);
        cells.extend([some(input), some(total), some(joules)]);
        cells
    };
    let currency = of.currency.as_deref().unwrap_or("Cost");
    let title = format!(
        "{currency} for a million tokens, at {} where nothing else is said",
        demand(of.demand)
    );
    table_of(of, title, head, 1, row)
}

fn some(value: Option<f64>) -> String {
    value.map_or_else(|| number::ABSENT.to_owned(), number::plain)
}

fn table_of(
    of: &Advice,
    title: String,
    head: Vec<String>,
    names: usize,
    row: impl Fn(&Choice) -> Vec<String>,
) -> Grid {
    let trust = of.choices.iter().map(|c| c.at.trust).collect();
    let rows = of.choices.iter().map(row).collect();
    Grid { title, head, names, rows, trust, note: None }
}

/// What stands behind a row.
fn notes(c: &Choice) -> Vec<String> {
    let mut out = Vec::new();
    let name = &c.name;
    out.extend(
        c.priced_by
            .as_ref()
            .filter(|_| c.no_cost.is_none())
            .map(|by| format!("{name}: priced by {by}.")),
    );
    out.extend(c.no_cost.as_ref().map(|why| format!("{name} has no cost: {why}.")));
    if !c.at.codes.is_empty() {
        let codes = c.at.codes.join(", ");
        out.push(format!(
            "{name}: numbers at {} {} with caution ({codes}).",
            c.at.load, c.at.level
        ));
    }
    out.extend(c.price_note.as_ref().map(|note| format!("{name}: {note}.")));
    if c.copies > 1 {
        out.push(format!(
            "{name}: that {} copies side by side carry {} times what one did is an assumption; it was measured with one ({}).",
            c.copies,
            c.copies,
            count(c.instances, "instance", "instances")
        ));
    }
    if let Some(seen) = c.measured_copies.as_ref().filter(|_| c.copies > 1) {
        out.push(format!(
            "{name}: {} is {} times as many such instances, and carried {} times as much within the SLO ({} against {}).",
            seen.name,
            number::in_unit(seen.times, ""),
            number::plain(seen.carried),
            seen.at[0],
            seen.at[1]
        ));
    }
    if let Some(share) = c.cold_share {
        let share = number::percent(share * 100.0);
        out.push(format!(
            "{name}: it is up only when asked, and about {share} % of requests would wait for a cold start; the SLO was measured without."
        ));
    }
    if !c.missed_below.is_empty() {
        out.push(format!(
            "{name}: {} below it missed the SLO, so that it met it may be chance.",
            c.missed_below.join(", ")
        ));
    }
    if let Some(power) = &c.power {
        let what = if power.with_hosts {
            "GPUs and machines"
        } else {
            "GPUs, without the machines around them"
        };
        let cost = match power.cost_per_hour.map(number::plain) {
            Some(cost) if power.is_in_cost => format!("; {cost} an hour of its cost"),
            Some(cost) if c.cost_per_hour.is_some() => {
                format!("; that would be {cost} an hour, and is in the rent")
            }
            Some(cost) => format!("; that is {cost} an hour"),
            None => String::new(),
        };
        out.push(format!(
            "{name}: {} W by {what}, all copies as busy as when measured{cost}.",
            number::plain(power.power_w)
        ));
    }
    out.extend(c.search.as_ref().map(|text| format!("{name}: its run searched: {text}.")));
    out
}

fn not_trusted(of: &Advice) -> Vec<String> {
    let row = |p: &scalebeam_model::analysis::advise::NotTrusted| {
        let counts = if p.would_count { "; it might change the answer" } else { "" };
        format!("{} {} ({}){counts}", p.name, p.point, p.codes.join(", "))
    };
    of.not_trusted.iter().map(row).collect()
}

fn forced(of: &Advice) -> Vec<String> {
    of.unlike.iter().map(|d| format!("{}: {} and {}", d.what, d.a, d.b)).collect()
}

fn changes(of: &Advice) -> Vec<String> {
    let shifts = of.shifts.iter().map(|s| shift(s, of));
    shifts.chain(of.break_even.iter().filter_map(|b| break_even(b, of))).collect()
}

fn shift(s: &Shift, of: &Advice) -> String {
    let percent = percent((s.factor - 1.0).abs());
    let way = if s.factor > 1.0 { "more" } else { "less" };
    let best = of.best().map_or("", |b| b.name.as_str());
    let what = match s.moved {
        Moved::Price => format!("{best} at {percent} % {way} of its price"),
        Moved::Power => format!("Power at {percent} % {way} of its price"),
        Moved::Load => format!("{percent} % {way} to carry"),
    };
    match s.changes {
        true => format!("{what}: {} becomes the choice.", s.best),
        false => format!("{what}: the same choice."),
    }
}

fn break_even(b: &BreakEven, of: &Advice) -> Option<String> {
    let at = |n: f64| format!("{} {}", number::plain(n), of.demand.unit());
    Some(match (b.below, b.above) {
        (Some(below), Some(above)) => {
            format!("{} is cheaper below {} and above {}.", b.other, at(below), at(above))
        }
        (Some(below), None) => format!("{} is cheaper below {}.", b.other, at(below)),
        (None, Some(above)) => format!("{} is cheaper above {}.", b.other, at(above)),
        (None, None) => return None,
    })
}

fn step(next: &Next) -> String {
    match next {
        Next::Between { name, load, met, missed, try_at } => format!(
            "{name} {load}: a level at {}, between {met}, which met the SLO, and {missed}, which did not.",
            number::in_unit(*try_at, "")
        ),
        Next::Higher { name, load, level } => {
            format!(
                "{name} {load}: levels above {level}, the highest that was measured; it met the SLO."
            )
        }
        Next::Requests { name, load, level, fewest: Some(n) } => format!(
            "{name} {load} {level}: more requests or repeats; fewer than {n} cannot show surely that the SLO is met."
        ),
        Next::Requests { name, load, level, fewest: None } => format!(
            "{name} {load} {level}: no number of requests shows surely that all are within a limit; bound p999 in place of max."
        ),
        Next::Copies { name, copies } => format!(
            "{name}: {copies} copies side by side, as replicas or behind its router; what they lose to each other was not measured."
        ),
        Next::RunnerUp { name, other } => {
            format!(
                "{name} and {other} with repeats = 3 or more: their costs cannot be told apart."
            )
        }
    }
}

#[cfg(test)]
mod tests;

//! Every doubt of an advice in its sentence.

use super::*;
use scalebeam_model::analysis::advise::{
    ADVICE_FORMAT, Ceiling, MeasuredCopies, Met, NotTrusted, PowerUse, Unfit,
};
use scalebeam_model::results::Estimate;
use scalebeam_model::trust::TrustLevel;

fn estimate(point: f64, low: f64, high: f64) -> Estimate {
    Estimate { point, low, high, confidence: 0.95, method: "Student over 4 trials".to_owned() }
}

fn choice(name: &str, copies: u32, cost: Option<f64>) -> Choice {
    Choice {
        name: name.to_owned(),
        run: "r".to_owned(),
        deployment: name.to_owned(),
        at: Met {
            load: "users".to_owned(),
            level: "c64".to_owned(),
            rps: estimate(12.0, 11.5, 12.5),
            users: 64.0,
            sure: false,
            trust: TrustLevel::Caution,
            codes: vec!["few_samples".to_owned()],
            trials: 4,
        },
        ceiling: Some(Ceiling { load: "users".to_owned(), level: "c128".to_owned(), sure: true }),
        search: None,
        copies,
        measured_copies: Some(MeasuredCopies {
            name: "4xtp4".to_owned(),
            times: 4.0,
            carried: 3.4,
            at: ["l/c8", "l/c2"].map(str::to_owned),
        }),
        instances: 1,
        gpus: 4 * copies,
        nodes: 0,
        utilisation: 0.8,
        cost_per_hour: cost.map(|c| estimate(c, c, c + 4.0)),
        priced_by: cost.map(|_| "4 x H100, owned".to_owned()),
        no_cost: cost.is_none().then(|| "no price is given".to_owned()),
        mtok_at_slo: PerMtok::default(),
        mtok_at_demand: PerMtok { input: Some(0.5), output: Some(2.0), total: Some(0.4) },
        mtok_at_utilisation: None,
        power: Some(PowerUse {
            power_w: 5_000.0,
            with_hosts: false,
            joules_per_output_token: Some(1.5),
            cost_per_hour: Some(0.75),
            is_in_cost: cost.is_some(),
        }),
        cold_share: cost.map(|_| 0.25),
        missed_below: vec!["c32".to_owned()],
        price_note: None,
    }
}

fn example() -> Advice {
    let shift = |moved, factor, best: &str| Shift {
        moved,
        factor,
        best: best.to_owned(),
        changes: best != "tp4",
    };
    let requests = |fewest| Next::Requests {
        name: "tp4".to_owned(),
        load: "users".to_owned(),
        level: "c64".to_owned(),
        fewest,
    };
    Advice {
        format: ADVICE_FORMAT,
        slo: "ttft.p99 <= 450 ms".to_owned(),
        demand: Demand::Rps(17.5),
        headroom: 0.2,
        utilisation: None,
        currency: Some("EUR".to_owned()),
        choices: vec![
            choice("tp4", 2, Some(10.0)),
            choice("tp8", 1, Some(12.5)),
            choice("bare", 1, None),
        ],
        alike: vec!["tp8".to_owned()],
        unfit: vec![Unfit {
            name: "tp1".to_owned(),
            why: "misses the SLO".to_owned(),
            needs_too_many: false,
        }],
        not_trusted: vec![NotTrusted {
            name: "tp8".to_owned(),
            point: "users/c256".to_owned(),
            codes: vec!["failures".to_owned()],
            would_count: true,
        }],
        break_even: vec![BreakEven { other: "tp8".to_owned(), below: Some(3.25), above: None }],
        shifts: vec![shift(Moved::Power, 1.2, "tp4"), shift(Moved::Load, 0.8, "tp8")],
        next: vec![requests(Some(299)), requests(None)],
        unlike: vec![],
    }
}

#[test]
fn every_doubt_has_its_sentence() {
    let text = advice(&example(), 220);
    for part in [
        "To carry: 17.5 req/s, with 20 % head-room",
        "Run 2 copies of tp4 (8 GPUs): 10.0 EUR an hour, 2.00 EUR for a million output tokens at 17.5 req/s.",
        "At users c64 one copy met the SLO, though chance may explain it, and carried 12.0 req/s \
         (between 11.5 and 12.5: Student over 4 trials); at c128 it surely missed.",
        "Its cost cannot be told from that of tp8",
        "bare has no cost: no price is given.",
        "tp4: numbers at users c64 with caution (few_samples).",
        "that 2 copies side by side carry 2 times what one did is an assumption",
        "tp4: 4xtp4 is 4 times as many such instances, and carried 3.40 times as much within the SLO (l/c8 against l/c2).",
        "about 25.0 % of requests would wait for a cold start",
        "tp4: c32 below it missed the SLO, so that it met it may be chance.",
        "tp4: 5,000 W by GPUs, without the machines around them, all copies as busy as when measured; \
         0.750 an hour of its cost.",
        "all copies as busy as when measured; that is 0.750 an hour.",
        "tp1: misses the SLO",
        "tp8 users/c256 (failures); it might change the answer",
        "Power at 20 % more of its price: the same choice.",
        "20 % less to carry: tp8 becomes the choice.",
        "tp8 is cheaper below 3.25 req/s.",
        "fewer than 299 cannot show surely that the SLO is met.",
        "bound p999 in place of max.",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(advice(&example(), 80).lines().all(|l| l.contains('─') || l.chars().count() <= 110));
}

#[test]
fn without_a_price_the_order_is_that_of_gpus() {
    let mut of = example();
    of.choices.drain(..2);
    let text = advice(&of, 110);
    assert!(
        text.contains("Run 1 copy of bare (4 GPUs), by the fewest GPUs, since it has no price.")
    );
    assert!(text.contains("The fewest GPUs first") && !text.contains("for a million tokens"));
}

#[test]
fn without_a_choice_the_first_thing_said_is_why() {
    let mut of = example();
    of.choices.clear();
    assert!(advice(&of, 110).contains("only points that are not to be trusted meet the SLO."));
    of.not_trusted.clear();
    assert!(advice(&of, 110).contains("no deployment that was measured meets the SLO."));
}

//! Advice on records whose truth is known: who carries what, for how much, and what would change that.

use super::*;
use crate::analysis::advise::{Advice, Asked, Candidate, Demand, Moved, Next, NoAdvice, advise};
use crate::analysis::versus::Contender;
use crate::cost::{Prices, Terms};
use crate::slo::Slo;
use proptest::prelude::*;

/// A run of one deployment: at `c2` it takes `tpot_us` a token, at `c3` so much longer that no objective here is met.
struct OneRun {
    plan: Plan,
    points: Vec<(PointPlan, Vec<TrialRecords>)>,
}

impl OneRun {
    /// Two slots, ten tokens a request: 2 / (10 x `tpot_us`) requests a second.
    fn new(name: &str, gpus: u32, tpot_us: u64, price: Option<f64>) -> Self {
        let mut deployment = deployment(name, gpus);
        deployment.gpu_kinds = vec!["H100".into()];
        deployment.price_per_hour = price;
        let met = (point_plan(name, 2, 1), vec![trial(1, 60, tpot_us, 0)]);
        let missed = (point_plan(name, 3, 1), vec![trial(1, 60, 50_000, 0)]);
        Self { plan: plan(vec![deployment]), points: vec![met, missed] }
    }
}

fn slo(bound: &str) -> Slo {
    Slo::parse(&[bound.to_owned()]).unwrap()
}

fn asked(slo: &Slo, rps: f64) -> Asked<'_> {
    Asked {
        slo,
        demand: Demand::Rps(rps),
        headroom: 0.2,
        utilisation: None,
        terms: None,
        prices: None,
        loads: &[],
        force: false,
    }
}

fn ask(runs: &[&OneRun], asked: &Asked<'_>) -> Result<Advice, NoAdvice> {
    let measured: Vec<Vec<MeasuredPoint<'_>>> = runs
        .iter()
        .map(|run| {
            let point = |(plan, trials): &'_ (PointPlan, Vec<TrialRecords>)| {
                (plan.id.clone(), trials.clone())
            };
            let all: Vec<_> = run.points.iter().map(point).collect();
            run.points
                .iter()
                .zip(all)
                .map(|((plan, _), (_, trials))| MeasuredPoint { plan, trials })
                .collect()
        })
        .collect();
    let results: Vec<Results> = runs
        .iter()
        .zip(&measured)
        .map(|(run, m)| analyse(&run.plan, m, &Frame { run: "r", ..Frame::default() }))
        .collect();
    let candidates: Vec<Candidate<'_>> = (0..runs.len())
        .map(|i| Candidate {
            contender: Contender {
                deployment: &runs[i].plan.deployments[0].name,
                plan: &runs[i].plan,
                measured: &measured[i],
                results: &results[i],
                tool: "1",
            },
            bring_up: Some(Nanos::from_secs(30)),
        })
        .collect();
    advise(&candidates, asked)
}

#[track_caller]
fn near(got: Option<f64>, want: f64) {
    let got = got.unwrap();
    assert!((got / want - 1.0).abs() < 2e-3, "{got}, not {want}");
}

/// 200 req/s for 3 an hour, and 800 for 10.
fn small_and_large() -> [OneRun; 2] {
    [OneRun::new("small", 1, 1_000, Some(3.0)), OneRun::new("large", 4, 250, Some(10.0))]
}

#[test]
fn the_cheapest_that_carries_it_comes_first_with_what_would_change_that() {
    let [small, large] = small_and_large();
    let slo = slo("e2e.p90 <= 20ms");
    let found =
        ask(&[&large, &small], &Asked { utilisation: Some(0.5), ..asked(&slo, 500.0) }).unwrap();
    let [first, second] = found.choices.as_slice() else { panic!("{found:#?}") };
    // 500 / (200 / 1.2) is above 2, and 500 / (800 / 1.2) below 1.
    assert_eq!((first.name.as_str(), first.copies, first.gpus), ("small", 3, 3));
    assert_eq!((second.name.as_str(), second.copies, second.gpus), ("large", 1, 4));
    let cost = first.cost_per_hour.as_ref().unwrap();
    // 3 % less a copy, and a fourth is needed.
    assert_eq!((cost.point, cost.low, cost.high), (9.0, 9.0, 12.0));
    near(Some(first.utilisation), 500.0 / 600.0);
    // 200 req/s of 10 tokens are 7.2 million an hour; 500 of 5 are 9.
    near(first.mtok_at_slo.output, 3.0 / 7.2);
    near(first.mtok_at_demand.output, 9.0 / 18.0);
    near(first.mtok_at_demand.input, 9.0 / 9.0);
    near(first.mtok_at_demand.total, 9.0 / 27.0);
    near(first.mtok_at_utilisation.and_then(|m| m.output), 3.0 / 3.6);
    assert_eq!((first.at.level.as_str(), first.at.sure), ("c2", true));
    assert_eq!(first.ceiling.as_ref().unwrap().level, "c3");
    assert_eq!(found.alike, ["large"], "its 10 lie between 9 and 12");
    near(found.break_even[0].above, 500.0);
    assert_eq!(found.break_even[0].below, None);
    let shifts: Vec<_> =
        found.shifts.iter().map(|s| (s.moved, s.factor, s.best.as_str())).collect();
    assert_eq!(
        shifts,
        [
            (Moved::Price, 0.8, "small"),
            (Moved::Price, 1.2, "large"),
            (Moved::Load, 0.8, "small"),
            (Moved::Load, 1.2, "large"),
        ]
    );
    let next = |n: &Next| match n {
        Next::Copies { name, copies } => format!("{name} {copies}"),
        Next::RunnerUp { name, other } => format!("{name} {other}"),
        // There is nothing between two and three users.
        other => panic!("{other:?}"),
    };
    assert_eq!(found.next.iter().map(next).collect::<Vec<_>>(), ["small 3", "small large"]);
    assert_eq!(
        ask(&[&small, &large], &Asked { utilisation: Some(0.5), ..asked(&slo, 500.0) }),
        Ok(found)
    );
}

#[test]
fn what_copies_lose_is_told_where_several_of_one_were_measured() {
    let mut one = OneRun::new("one", 1, 1_000, Some(3.0));
    // 2 / 5.4 ms are 1.85 times 2 / 10 ms.
    let mut two = OneRun::new("two", 2, 540, Some(7.0));
    one.plan.deployments[0].instances = vec![instance(1)];
    two.plan.deployments[0].instances = vec![instance(1); 2];
    let slo = slo("e2e.p90 <= 20ms");
    let found = ask(&[&one, &two], &asked(&slo, 300.0)).unwrap();
    let best = found.best().unwrap();
    assert_eq!((best.name.as_str(), best.copies), ("one", 2));
    let seen = best.measured_copies.as_ref().unwrap();
    assert_eq!(seen.name, "two");
    near(Some(seen.times), 2.0);
    near(Some(seen.carried), 1.0 / 0.54);
    assert!(!found.next.iter().any(|n| matches!(n, Next::Copies { .. })), "{:?}", found.next);
    assert_eq!(found.choices[1].measured_copies, None);
    two.plan.deployments[0].instances[1].tp = 2;
    let found = ask(&[&one, &two], &asked(&slo, 300.0)).unwrap();
    assert_eq!(found.best().unwrap().measured_copies, None, "they are of another shape");
}

#[test]
fn users_are_carried_as_many_as_were_in_flight() {
    let [small, large] = small_and_large();
    let slo = slo("e2e.p90 <= 20ms");
    let found =
        ask(&[&small, &large], &Asked { demand: Demand::Users(5.0), ..asked(&slo, 1.0) }).unwrap();
    // 5 x 1.2 at two each are three copies of either.
    assert!(found.choices.iter().all(|c| c.copies == 3), "{found:#?}");
    assert_eq!(found.best().unwrap().name, "small");
    // Five users at 100 req/s each.
    near(found.best().unwrap().mtok_at_demand.output, 9.0 / 18.0);
}

#[test]
fn who_misses_the_objective_is_told_why_and_is_no_choice() {
    let [small, large] = small_and_large();
    let found = ask(&[&small, &large], &asked(&slo("e2e.p90 <= 5ms"), 500.0)).unwrap();
    assert_eq!(found.best().unwrap().name, "large");
    assert_eq!(found.unfit[0].name, "small");
    assert_eq!(found.unfit[0].why, "misses the SLO even at load/c2: e2e.p90 <= 5.00 ms (is 10 ms)");
    assert!(found.shifts.is_empty() && found.break_even.is_empty(), "it is alone");
    let found = ask(&[&small, &large], &asked(&slo("e2e.p90 <= 1ms"), 500.0)).unwrap();
    assert!(found.best().is_none() && found.unfit.len() == 2);
    assert!(!found.hangs_on_what_is_not_trusted());
}

#[test]
fn a_point_that_is_not_trusted_is_named_and_carries_nothing() {
    let [small, mut large] = small_and_large();
    for record in large.points[0].1[0].records.iter_mut().take(6) {
        record.outcome = Outcome::Failed;
    }
    let found = ask(&[&small, &large], &asked(&slo("e2e.p50 <= 20ms"), 500.0)).unwrap();
    assert_eq!(found.best().unwrap().name, "small");
    assert_eq!(found.unfit[0].why, "what meets the SLO of it is not to be trusted");
    let left_out = found.not_trusted.iter().find(|p| p.point == "load/c2").unwrap();
    assert_eq!(left_out.name, "large");
    assert!(left_out.would_count && left_out.codes.contains(&"failures".to_owned()));
    assert!(found.hangs_on_what_is_not_trusted());
}

#[test]
fn what_has_no_price_comes_after_what_has_one_and_says_why() {
    let (priced, unpriced) =
        (OneRun::new("priced", 8, 1_000, Some(99.0)), OneRun::new("unpriced", 1, 1_000, None));
    let slo = slo("e2e.p90 <= 20ms");
    let found = ask(&[&unpriced, &priced], &asked(&slo, 100.0)).unwrap();
    assert_eq!(found.best().unwrap().name, "priced");
    assert_eq!(found.choices[1].no_cost.as_deref(), Some("no price is given"));
    // Prices that are given go before those of the runs.
    let prices = Prices::parse("[gpu.H100]\non_demand = 2.0\nspot = 1.0\n", "p").unwrap();
    let given = Asked { prices: Some(&prices), ..asked(&slo, 100.0) };
    let found = ask(&[&unpriced, &priced], &given).unwrap();
    let costs = |found: &Advice| -> Vec<(String, f64)> {
        let cost = |c: &crate::analysis::advise::Choice| c.cost_per_hour.as_ref().unwrap().point;
        found.choices.iter().map(|c| (c.name.clone(), cost(c))).collect()
    };
    assert_eq!(costs(&found), [("unpriced".to_owned(), 2.0), ("priced".to_owned(), 16.0)]);
    let spot = Asked { terms: Some(Terms::Spot), ..given };
    near(Some(costs(&ask(&[&unpriced, &priced], &spot).unwrap())[0].1), 1.0);
    let reserved = Asked { terms: Some(Terms::Reserved), ..given };
    let found = ask(&[&unpriced, &priced], &reserved).unwrap();
    assert_eq!(found.choices[1].no_cost.as_deref(), Some("no reserved price of H100"));
    assert!(found.choices[0].price_note.as_ref().unwrap().contains("says no terms"));
}

/// What a plan made of a table is on the table's own terms; and money of two kinds is not held against each other.
#[test]
fn a_price_is_of_its_terms_and_of_its_currency() {
    let mut priced = OneRun::new("priced", 1, 1_000, Some(2.0));
    let table = "currency = \"USD\"\n[gpu.H100]\non_demand = 2.0\n";
    priced.plan.prices = Some(Prices::parse(table, "p").unwrap());
    let slo = slo("e2e.p90 <= 20ms");
    let found = ask(&[&priced], &asked(&slo, 100.0)).unwrap();
    assert_eq!(found.currency.as_deref(), Some("USD"));
    near(found.choices[0].cost_per_hour.as_ref().map(|c| c.point), 2.0);
    for terms in [Terms::Reserved, Terms::Owned] {
        let other = Asked { terms: Some(terms), ..asked(&slo, 100.0) };
        let choice = &ask(&[&priced], &other).unwrap().choices[0];
        assert_eq!((&choice.cost_per_hour, &choice.price_note), (&None, &None));
        let why = format!("no {} price of H100", terms.name());
        assert_eq!(choice.no_cost.as_deref(), Some(why.as_str()));
    }

    let mut euros = OneRun::new("euros", 1, 1_000, None);
    let table = "currency = \"EUR\"\n[gpu.H100]\non_demand = 1.0\n";
    euros.plan.prices = Some(Prices::parse(table, "p").unwrap());
    euros.plan.deployments[0].price_per_hour = Some(1.0);
    let error = ask(&[&priced, &euros], &asked(&slo, 100.0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "prices are in EUR and USD, and none of them can be held against another"
    );
}

#[test]
fn power_is_added_to_what_is_owned_only_and_must_be_known() {
    let run = OneRun::new("a", 1, 1_000, None);
    let slo = slo("e2e.p90 <= 20ms");
    let prices = "[gpu.H100]\nowned = 1.0\non_demand = 2.0\n[power]\nper_kwh = 0.2\n";
    let prices = Prices::parse(prices, "p").unwrap();
    let with = |terms| Asked { prices: Some(&prices), terms: Some(terms), ..asked(&slo, 100.0) };
    let found = ask(&[&run], &with(Terms::Owned)).unwrap();
    let choice = found.best().unwrap();
    assert_eq!(choice.no_cost.as_deref(), Some("it is owned, and its power was not read"));
    assert_eq!(choice.cost_per_hour, None, "without its power that would be too little");
    let found = ask(&[&run], &with(Terms::OnDemand)).unwrap();
    near(found.best().unwrap().cost_per_hour.as_ref().map(|c| c.point), 2.0);
}

#[test]
fn what_is_billed_by_the_second_is_cheaper_below_a_rate_and_makes_requests_wait() {
    let fixed = OneRun::new("fixed", 1, 1_000, Some(2.0));
    let mut metered = OneRun::new("metered", 1, 1_000, None);
    metered.plan.deployments[0].platform = Platform::Modal;
    let slo = slo("e2e.p90 <= 20ms");
    let table = "[per_second.modal]\ngpu = { H100 = 0.001 }\n";
    let with_wait = Prices::parse(&format!("{table}scaledown = \"60s\"\n"), "p").unwrap();
    let rate = 0.002;
    let with = Asked { prices: Some(&with_wait), ..asked(&slo, rate) };
    let found = ask(&[&fixed, &metered], &with).unwrap();
    let best = found.best().unwrap();
    assert_eq!(best.name, "metered");
    // It starts in the 30 s of the run's own bring-up, and lingers 60 s after 10 ms.
    let cycle = rate * 30.0 + (rate * 60.01_f64).exp();
    near(best.cost_per_hour.as_ref().map(|c| c.point), 3.6 * (1.0 - 1.0 / cycle));
    near(best.cold_share, (1.0 + rate * 30.0) / cycle);
    let at = found.break_even[0].above.unwrap();
    near(Some(3.6 * (1.0 - 1.0 / (at * 30.0 + (at * 60.01).exp()))), 2.0);
    // Users keep it up.
    let users = Asked { demand: Demand::Users(1.0), ..with };
    let found = ask(&[&fixed, &metered], &users).unwrap();
    assert_eq!(found.best().unwrap().name, "fixed");
    let prices = Prices::parse(table, "p").unwrap();
    let found = ask(&[&metered], &Asked { prices: Some(&prices), ..asked(&slo, rate) }).unwrap();
    let why = found.choices[0].no_cost.as_deref();
    assert_eq!(why, Some("how long it waits idle is not known; say scaledown"));
}

#[test]
fn what_was_not_asked_the_same_is_refused_unless_it_is_forced() {
    let [small, mut large] = small_and_large();
    large.plan.deployments[0].model = "another".into();
    let slo = slo("e2e.p90 <= 20ms");
    let refused = ask(&[&small, &large], &asked(&slo, 500.0)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "large and small were not asked the same: model (another and m)"
    );
    let found = ask(&[&small, &large], &Asked { force: true, ..asked(&slo, 500.0) }).unwrap();
    assert_eq!((found.choices.len(), found.unlike.len()), (2, 1));
    let mut two = OneRun::new("a", 1, 1_000, None);
    two.points[1].0.workload.name = "other".into();
    two.points[1].0.load = "other-load".into();
    let refused = ask(&[&two], &asked(&slo, 500.0)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a was measured under several workloads: other-load (other), load (w)"
    );
    let loads = ["load".to_owned()];
    assert!(ask(&[&two], &Asked { loads: &loads, ..asked(&slo, 500.0) }).is_ok());
    let loads = ["nothing".to_owned()];
    let refused = ask(&[&two], &Asked { loads: &loads, ..asked(&slo, 500.0) }).unwrap_err();
    assert_eq!(refused, NoAdvice::NothingMeasured { names: vec!["a".into()] });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the prices, in whatever order they are given: the first costs the least, and no number changes.
    #[test]
    fn the_first_costs_the_least_in_any_order(
        prices in prop::array::uniform3(0.1..20.0_f64), rps in 1.0..3_000.0_f64, turn in 0_usize..3,
    ) {
        let runs = [
            OneRun::new("a", 1, 1_000, Some(prices[0])),
            OneRun::new("b", 2, 400, Some(prices[1])),
            OneRun::new("c", 4, 250, Some(prices[2])),
        ];
        let slo = slo("e2e.p90 <= 20ms");
        let found = ask(&[&runs[0], &runs[1], &runs[2]], &asked(&slo, rps)).unwrap();
        let costs: Vec<f64> =
            found.choices.iter().map(|c| c.cost_per_hour.as_ref().unwrap().point).collect();
        prop_assert!(costs.is_sorted(), "{costs:?}");
        for choice in &found.choices {
            let carries = choice.at.rps.point / 1.2;
            let copies = f64::from(choice.copies);
            prop_assert!(copies * carries >= rps * (1.0 - 1e-8));
            prop_assert!(copies <= 1.0 || (copies - 1.0) * carries < rps);
        }
        let mut turned = [&runs[0], &runs[1], &runs[2]];
        turned.rotate_left(turn);
        turned.swap(0, 1);
        prop_assert_eq!(ask(&turned, &asked(&slo, rps)).unwrap(), found);
    }
}

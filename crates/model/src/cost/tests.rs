//! Prices against sums worked out by hand, and what must hold of any fleet.

use super::*;
use crate::analysis::tests::deployment;
use crate::plan::{HostGpus, HostPlan, InstancePlan, Role};
use crate::units::Nanos;
use proptest::prelude::*;

const TABLE: &str = r#"
currency = "USD"
plan = "reserved"
[gpu.H100-SXM-80G]
on_demand = 3.5
reserved = 2.5
owned = 1.0
[gpu.L4]
on_demand = 0.7
[host.node]
on_demand = 24.0
[per_second.modal]
gpu = { H100 = 0.0011 }
instance = 0.0001
cold_start = "90s"
[power]
per_kwh = 0.2
pue = 1.5
"#;

fn prices() -> Prices {
    Prices::parse(TABLE, "prices.toml").unwrap()
}

fn host(name: &str, gpu: Option<&str>) -> HostPlan {
    HostPlan {
        name: name.into(),
        addr: "127.0.0.1".into(),
        ssh: None,
        gpus: 8,
        gpu: gpu.map(str::to_owned),
        iface: None,
        labels: BTreeMap::new(),
    }
}

fn placed(index: u32, host: &str, ids: &[u32]) -> InstancePlan {
    InstancePlan {
        index,
        role: Role::Aggregated,
        tp: u32::try_from(ids.len()).unwrap(),
        pp: 1,
        dp: 1,
        dp_balance: None,
        ep: None,
        place: vec![HostGpus { host: host.into(), ids: ids.to_vec() }],
        port: 8000,
    }
}

#[test]
fn a_deployment_has_the_price_of_what_it_takes() {
    let hosts = [
        host("a", Some("H100-SXM-80G")),
        host("b", Some("L4")),
        host("node-0", Some("H100-SXM-80G")),
        host("c", None),
    ];
    let of = |places: &[(&str, &[u32])], terms| {
        let mut d = deployment("d", 0);
        d.instances = (0..).zip(places).map(|(i, (host, ids))| placed(i, host, ids)).collect();
        prices().rent(&Taken::of(&d, &hosts), terms)
    };
    let cost = |rent: Result<Rent, String>| rent.map(|r| (r.per_hour, r.by));
    use Terms::{OnDemand, Owned, Reserved, Spot};
    let gpus = |n: f64, text: &str| Ok((n, text.to_owned()));
    assert_eq!(cost(of(&[("a", &[0, 1])], OnDemand)), gpus(7.0, "2 x H100-SXM-80G, on_demand"));
    assert_eq!(cost(of(&[("a", &[0, 1])], Reserved)), gpus(5.0, "2 x H100-SXM-80G, reserved"));
    // A GPU that two instances share is had once.
    assert_eq!(
        cost(of(&[("a", &[0]), ("a", &[0])], OnDemand)),
        gpus(3.5, "1 x H100-SXM-80G, on_demand")
    );
    let both = cost(of(&[("a", &[0]), ("b", &[0, 1])], OnDemand)).unwrap();
    assert!((both.0 - 4.9).abs() < 1e-12, "{both:?}");
    // A machine that has a price is had whole, and so are two of them.
    assert_eq!(
        cost(of(&[("node-0", &[3])], OnDemand)),
        gpus(24.0, "node-0 whole for every 8 copies, on_demand")
    );
    // On other terms it has no price, so its GPUs have theirs.
    assert_eq!(cost(of(&[("node-0", &[3])], Reserved)), gpus(2.5, "1 x H100-SXM-80G, reserved"));
    assert!(of(&[("a", &[0])], Owned).unwrap().is_owned);
    assert_eq!(cost(of(&[("a", &[0])], Spot)), Err("no spot price of H100-SXM-80G".to_owned()));
    assert_eq!(
        cost(of(&[("c", &[0])], OnDemand)),
        Err("no on_demand price of GPUs whose kind is not named".to_owned())
    );
    assert!(of(&[], OnDemand).is_err(), "nothing is taken, so nothing is known");
}

#[test]
fn copies_share_machines_that_have_gpus_left() {
    let hosts = [host("a", None), host("b", None)];
    let mut d = deployment("d", 3);
    d.instances = vec![placed(0, "a", &[0, 1, 2])];
    let nodes = |d: &crate::plan::DeploymentPlan, n| Taken::of(d, &hosts).nodes(n);
    assert_eq!([1, 2, 3].map(|n| nodes(&d, n)), [1, 1, 2], "two of three GPUs have room on eight");
    d.instances.push(placed(1, "b", &[0, 1, 2, 3, 4]));
    assert_eq!(nodes(&d, 2), 4);
    d.instances.clear();
    assert_eq!(nodes(&d, 2), 0, "not known");
}

#[test]
fn what_is_billed_by_the_second_says_what_is_billed_besides() {
    let mut d = deployment("d", 4);
    d.platform = Platform::Modal;
    d.gpu_kinds = vec!["H100".into()];
    let scaledown = crate::plan::ParamValue::Text("60s".into());
    d.params.insert("scaledown".into(), scaledown);
    d.instances = vec![InstancePlan { place: vec![], ..placed(0, "", &[0, 1, 2, 3]) }];
    let rent = prices().rent(&Taken::of(&d, &[]), Terms::Spot).unwrap();
    // (4 x 0.0011 + 0.0001) x 3600.
    assert!((rent.per_hour - 16.2).abs() < 1e-9, "{rent:?}");
    let seconds = |n| Some(Nanos::from_secs(n));
    assert_eq!(
        rent.metered,
        Some(Metered { cold_start: seconds(90), scaledown: seconds(60), kept_up: 0.0 })
    );
    d.gpu_kinds = vec!["B200".into()];
    let missing = prices().rent(&Taken::of(&d, &[]), Terms::OnDemand);
    assert_eq!(missing, Err("no price of a second of B200 on modal".to_owned()));
}

#[test]
fn power_is_paid_with_what_the_building_adds() {
    // 2 kW at 1.5 is 3 kW.
    assert!((prices().power.unwrap().per_hour(2_000.0) - 0.6).abs() < 1e-12);
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    for (text, line, part) in [
        ("[gpu.H100]\non_demnd = 1.0\n", 2, "did you mean 'on_demand'?"),
        ("[gpu.H100]\non_demand = -1.0\n", 2, "a price is a number from 0 on"),
        ("[gpu.H100]\n", 1, "it has no price"),
        ("[per_second.modl]\ninstance = 1.0\n", 1, "did you mean 'modal'?"),
        ("[per_second.modal]\ncold_start = \"5s\"\n", 1, "it has no price"),
        ("[power]\nper_kwh = 0.1\npue = 0.5\n", 3, "pue = 1.3"),
        ("[power]\npue = 1.1\n", 1, "per_kwh"),
        ("curency = \"USD\"\n", 1, "did you mean 'currency'?"),
    ] {
        let found = Prices::parse(text, "p.toml").unwrap_err();
        let first = &found.0[0];
        assert_eq!(first.line, line, "{found}");
        assert!(found.to_string().contains(part), "{part}: {found}");
    }
}

fn always(per_hour: f64, carries_rps: f64) -> Bill {
    Bill { per_hour, machines: None, carries_rps, uptime: Uptime::Always }
}

#[test]
fn a_copy_that_is_up_only_when_asked_costs_its_start_and_its_wait() {
    let asked = OnlyWhenAsked { cold_start_s: 90.0, lingers_s: 65.0, kept_up: 0.0 };
    // One request in a long time: 155 s each.
    let rare = 1e-6;
    assert!((asked.share_up(rare) / rare - 155.0).abs() < 0.1, "{}", asked.share_up(rare));
    assert!((asked.share_cold(rare) - 1.0).abs() < 1e-3);
    // e^(65/60) = 2.955, and 1.5 requests come in a start.
    let a_minute = 1.0 / 60.0;
    assert!((asked.share_up(a_minute) - (1.0 - 1.0 / 4.454_6)).abs() < 1e-4);
    assert!((asked.share_cold(a_minute) - 2.5 / 4.454_6).abs() < 1e-4);
    assert!(asked.share_up(1e9) > 1.0 - 1e-12);
    assert!(asked.share_cold(1e9) < 1e-12);
}

#[test]
fn the_smaller_is_cheaper_below_a_rate_that_is_told() {
    // One large copy for 10 carries 8; small ones for 4 carry 2: two of them cost 8, a third 12.
    let (small, large) = (always(4.0, 2.0), always(10.0, 8.0));
    let (below, above) = small.break_even(&large, 3.0, (0.1, 30.0));
    assert_eq!(below, None);
    assert!((above.unwrap() - 4.0).abs() < 1e-4, "{above:?}");
    let (below, above) = large.break_even(&small, 6.0, (0.1, 30.0));
    assert!((below.unwrap() - 4.0).abs() < 1e-4, "{below:?}");
    // Two large ones cost 20, five small ones as much.
    assert_eq!(above, None, "{above:?}");
}

#[test]
fn copies_that_share_a_machine_pay_for_it_once() {
    let machines = Some(Machines { per_hour: 24.0, fits: 4 });
    let bill = Bill { per_hour: 1.0, machines, ..always(0.0, 2.0) };
    let cost = |rate| bill.cost_per_hour(rate).unwrap();
    // One, four and five copies.
    for (rate, wanted) in [(2.0, 25.0), (8.0, 28.0), (10.0, 53.0)] {
        assert!((cost(rate) - wanted).abs() < 1e-9, "{rate}: {}", cost(rate));
    }
    assert!((bill.full().per_hour - 7.0).abs() < 1e-12);
    // For 15 an hour 4 are carried: two of them cost 30 where the shared machine costs 28.
    let (below, above) = bill.break_even(&always(15.0, 4.0), 8.0, (0.1, 9.0));
    assert!((below.unwrap() - 4.0).abs() < 1e-4, "{below:?}");
    assert!((above.unwrap() - 8.0).abs() < 1e-4, "a second machine: {above:?}");
}

#[test]
fn what_stays_up_is_paid_for_and_starts_nobody_waits_for() {
    let asked = OnlyWhenAsked { cold_start_s: 90.0, lingers_s: 65.0, kept_up: 0.5 };
    assert!((asked.share_up(1e-9) - 0.5).abs() < 1e-6);
    assert!(asked.share_cold(0.01).abs() < f64::EPSILON);
}

proptest! {
    #[test]
    fn copies_are_the_least_number_that_carries_the_rate(rate in 0.01..500.0_f64, carries in 0.05..50.0_f64) {
        let bill = always(1.0, carries);
        let n = f64::from(bill.copies(rate).unwrap());
        prop_assert!(n >= 1.0 && n * carries >= rate * (1.0 - 1e-8));
        prop_assert!(n <= 1.0 || (n - 1.0) * carries < rate);
    }

    #[test]
    fn cost_grows_with_price_and_with_rate(
        rate in 0.01..100.0_f64, more in 1.0..3.0_f64, price in 0.01..100.0_f64,
        carries in 0.5..50.0_f64, cold in 0.0..300.0_f64, lingers in 0.0..300.0_f64,
    ) {
        let asked = Uptime::OnlyWhenAsked(OnlyWhenAsked { cold_start_s: cold, lingers_s: lingers, kept_up: 0.0 });
        for uptime in [Uptime::Always, asked] {
            let bill = Bill { per_hour: price, machines: None, carries_rps: carries, uptime };
            let cost = bill.cost_per_hour(rate).unwrap();
            let dearer = Bill { per_hour: price * more, ..bill }.cost_per_hour(rate).unwrap();
            let busier = bill.cost_per_hour(rate * more).unwrap();
            prop_assert!(dearer >= cost && busier >= cost * (1.0 - 1e-9), "{cost} {dearer} {busier}");
            prop_assert!(cost <= always(price, carries).cost_per_hour(rate).unwrap() * (1.0 + 1e-9));
        }
    }

    #[test]
    fn at_the_break_even_both_cost_the_same(
        price in 0.5..2.0_f64, cold in 1.0..120.0_f64, lingers in 5.0..300.0_f64,
    ) {
        let uptime = Uptime::OnlyWhenAsked(OnlyWhenAsked { cold_start_s: cold, lingers_s: lingers, kept_up: 0.0 });
        let metered = Bill { per_hour: 2.0 * price, machines: None, carries_rps: 50.0, uptime };
        let fixed = always(price, 50.0);
        // All the time up it is twice as dear, so there is a rate at which it is up half of the time.
        let (below, above) = fixed.break_even(&metered, 40.0, (1e-6, 49.0));
        let at = below.unwrap();
        prop_assert_eq!(above, None);
        let (a, b) = (metered.cost_per_hour(at).unwrap(), fixed.cost_per_hour(at).unwrap());
        prop_assert!((a / b - 1.0).abs() < 1e-4, "{} and {} at {}", a, b, at);
        prop_assert!(metered.cost_per_hour(at * 0.9).unwrap() < b);
        prop_assert!(metered.cost_per_hour(at * 1.1).unwrap() > b);
    }
}

#[test]
fn a_million_tokens_have_a_price_where_there_are_tokens() {
    // 10 requests of 200 tokens a second are 7.2 million an hour.
    assert!((per_mtok(36.0, 10.0, 200.0).unwrap() - 5.0).abs() < 1e-12);
    assert_eq!(per_mtok(36.0, 10.0, 0.0), None);
}

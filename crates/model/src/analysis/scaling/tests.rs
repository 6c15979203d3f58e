//! The seeds' own tables, and what must not be called scaling.

use super::*;

/// `gpus` of one kind in `replicas` of `TP n` over `hosts` each.
fn shape(gpus: u32, replicas: u32, hosts: u32, kinds: &[&str]) -> Shape {
    Shape {
        gpus: Some(gpus),
        nodes: Some(replicas.max(hosts)),
        replicas,
        serves: "vllm m".to_owned(),
        instance: format!("TP{}", gpus / replicas),
        hosts_per_instance: hosts,
        gpu_kinds: kinds.iter().map(|k| (*k).to_owned()).collect(),
    }
}

fn size(name: &str, shape: Shape, asked: f64, value: f64) -> Measured {
    Measured {
        deployment: name.to_owned(),
        shape,
        level: format!("c{asked}"),
        asked: Some(asked),
        is_rate_given: false,
        value,
        spread: None,
        ratio_range: None,
        failed: 0.0,
        trust: TrustLevel::Sound,
        mark: None,
    }
}

fn at_load(sizes: &[Measured]) -> Scaling {
    of("output_tps", Better::Higher, sizes)
}

fn of(metric: &str, better: Better, sizes: &[Measured]) -> Scaling {
    let basis = Basis::Load { level: sizes[0].level.clone() };
    study((metric, better), "l", basis, sizes, Vec::new()).unwrap()
}

fn efficiency(step: &Step) -> f64 {
    step.efficiency.unwrap().point
}

fn codes(step: &Step) -> Vec<&str> {
    step.marks.iter().map(|m| m.code.as_str()).collect()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Seed 1: eight GPUs over two nodes give less than four; the last row lost requests on both sides.
#[test]
fn seed_one_gives_its_efficiency_per_gpu_and_its_censored_row_is_marked() {
    let rows = [
        (50.0, 624.9, 550.9, "0.44", 0.0),
        (100.0, 892.6, 755.2, "0.42", 0.0),
        (200.0, 1139.4, 931.9, "0.41", 0.0),
        (300.0, 1213.1, 1021.2, "0.42", 0.0),
        (500.0, 1289.9, 988.3, "0.38", 0.168),
    ];
    for (users, single, dual, expected, failed) in rows {
        let kinds = ["A100"];
        let base = size("single-4gpu", shape(4, 1, 1, &kinds), users, single);
        let over = size("dual-8gpu", shape(8, 1, 2, &kinds), users, dual);
        let scaling = at_load(&[base, Measured { failed, ..over }]);
        let step = &scaling.steps[1];
        assert_eq!(format!("{:.2}", efficiency(step)), expected);
        assert_eq!(step.load_growth, Some(LoadGrowth::Strong));
        assert_eq!((step.growth, step.size), (Growth::Instance, 2.0));
        assert!(step.has("split"), "{:?}", step.marks);
        assert_eq!((step.has("censored"), step.counts), (failed > 0.0, failed == 0.0));
        assert!(scaling.text.contains("It has no control"), "{}", scaling.text);
    }
}

fn seed_two(batch: f64, values: [f64; 4]) -> Vec<Measured> {
    let sizes = [(1, &["A100"][..]), (2, &["A100"]), (3, &["A100"]), (4, &["A100", "H100"])];
    let of = |((n, kinds), value): ((u32, &[&str]), f64)| {
        let asked = batch * f64::from(n);
        size(&format!("{n}r"), shape(4 * n, n, 1, kinds), asked, value)
    };
    sizes.into_iter().zip(values).map(of).collect()
}

/// Seed 2: users grow with replicas, and the fourth replica is of another kind of GPU.
#[test]
fn seed_two_gives_its_efficiencies_and_its_fourth_size_is_no_scaling() {
    for (batch, values, expected) in [
        (32.0, [2.7, 4.8, 6.8, 8.3], [0.889, 0.840, 0.769]),
        (32.0, [621.4, 1172.63, 1551.94, 1868.76], [0.944, 0.832, 0.752]),
        (256.0, [6.4, 10.3, 14.5, 17.5], [0.805, 0.755, 0.684]),
        (256.0, [1475.64, 2542.32, 3222.89, 4443.5], [0.861, 0.728, 0.753]),
    ] {
        let scaling = at_load(&seed_two(batch, values));
        let found: Vec<f64> =
            scaling.steps[1..].iter().map(|s| rounded(efficiency(s), 3)).collect();
        assert_eq!(found, expected);
        assert!(scaling.steps.iter().skip(1).all(|s| s.load_growth == Some(LoadGrowth::Weak)));
        assert_eq!(codes(&scaling.steps[3]), ["heterogeneous"]);
        assert_eq!(scaling.steps.iter().filter(|s| s.counts).count(), 3);
        let fit = scaling.fits.iter().find(|f| f.law == LawName::Gustafson).unwrap();
        assert_eq!((fit.sizes, fit.growth), (3, Growth::Copies), "the fourth is in no law");
    }
}

/// Seed 2's hidden row: four GPUs cut over two nodes are the same size, and give a third.
#[test]
fn the_same_gpus_cut_over_two_nodes_are_told_apart_from_scaling() {
    let base = size("1r", shape(4, 1, 1, &["A100"]), 32.0, 2.7);
    let split = size("split", shape(4, 1, 2, &["A100"]), 32.0, 0.9);
    let scaling = of("rps", Better::Higher, &[base, split]);
    let step = &scaling.steps[1];
    assert_eq!((step.size, rounded(efficiency(step), 3)), (1.0, 0.333));
    assert_eq!((step.growth, codes(step)), (Growth::Instance, vec!["split"]));
    assert!(
        scaling.text.contains(
            "split, of the same GPUs, is 0.333 times as good; each TP4 is cut over 2 hosts"
        ),
        "{}",
        scaling.text
    );
}

/// Seed 5: 450, 800 and 1400 tokens/s are 1.0, 1.8 and 3.1 times at 100, 90 and 78 %: 800 / 450 / 2 is 89.
#[test]
fn seed_five_gives_its_speedups_and_its_efficiencies() {
    let tp = |n: u32, value| size(&format!("tp{n}"), shape(n, 1, 1, &["L4"]), 100.0, value);
    let scaling = at_load(&[tp(1, 450.0), tp(2, 800.0), tp(4, 1400.0)]);
    let found: Vec<(f64, f64)> = scaling
        .steps
        .iter()
        .map(|s| (rounded(s.speedup.point, 1), rounded(efficiency(s), 2)))
        .collect();
    assert_eq!(found, [(1.0, 1.0), (1.8, 0.89), (3.1, 0.78)]);
    let amdahl = scaling.fits.iter().find(|f| f.law == LawName::Amdahl).unwrap();
    assert!((0.08..0.13).contains(&amdahl.serial.point), "{amdahl:?}");
    assert_eq!(amdahl.serial.range, None, "single numbers have no spread");
}

#[test]
fn copies_of_the_same_gpus_are_the_control_of_a_larger_instance() {
    let base = size("tp4", shape(4, 1, 1, &[]), 64.0, 1000.0);
    let larger = size("tp8", shape(8, 1, 1, &[]), 64.0, 1500.0);
    let copies = size("2xtp4", shape(8, 2, 1, &[]), 64.0, 1900.0);
    let scaling = at_load(&[base, larger, copies]);
    let step = scaling.steps.iter().find(|s| s.deployment == "tp8").unwrap();
    let control = step.control.as_ref().unwrap();
    assert_eq!((control.deployment.as_str(), rounded(control.ratio, 3)), ("2xtp4", 0.789));
    assert!(scaling.text.contains("(2xtp4) are 1.27 times as good"), "{}", scaling.text);
}

#[test]
fn a_given_rate_and_an_unlike_load_give_no_efficiency() {
    let base = size("a", shape(1, 1, 1, &[]), 10.0, 100.0);
    let more = size("b", shape(2, 2, 1, &[]), 10.0, 100.0);
    let open = |m: &Measured| Measured { is_rate_given: true, ..m.clone() };
    let at_rate = at_load(&[open(&base), open(&more)]);
    assert_eq!((at_rate.steps[1].efficiency, codes(&at_rate.steps[1])), (None, vec!["asked_rate"]));
    let unlike = at_load(&[base, Measured { asked: Some(13.0), ..more }]);
    assert_eq!((unlike.steps[1].efficiency, codes(&unlike.steps[1])), (None, vec!["unlike_load"]));
}

#[test]
fn another_engine_of_twice_the_size_is_no_scaling() {
    let base = size("a", shape(1, 1, 1, &[]), 8.0, 100.0);
    let other = Shape { serves: "sglang m".to_owned(), ..shape(2, 2, 1, &[]) };
    let scaling = at_load(&[base, size("b", other, 8.0, 190.0)]);
    let step = &scaling.steps[1];
    assert_eq!((codes(step), step.counts), (vec!["another_engine", "another_shape"], false));
    assert_eq!(step.growth, Growth::Mixed);
}

#[test]
fn less_is_better_for_a_latency_and_stays_as_it_is_where_the_load_grows() {
    let base = size("a", shape(1, 1, 1, &[]), 8.0, 400.0);
    let same = size("b", shape(2, 1, 1, &[]), 8.0, 250.0);
    let grown = size("c", shape(2, 2, 1, &[]), 16.0, 440.0);
    let strong = of("e2e.p50", Better::Lower, &[base.clone(), same]);
    assert_eq!((strong.steps[1].speedup.point, efficiency(&strong.steps[1])), (1.6, 0.8));
    let weak = of("e2e.p50", Better::Lower, &[base, grown]);
    assert_eq!(format!("{:.3}", efficiency(&weak.steps[1])), "0.909");
    assert!(weak.fits.is_empty(), "latencies follow no such law");
}

#[test]
fn sizes_with_a_spread_give_laws_with_a_range() {
    let spread = Some(Spread { error: 0.01, freedom: 4.0 });
    let of = |n: u32, value| Measured {
        spread,
        ..size(&format!("{n}r"), shape(n, n, 1, &[]), 64.0, value)
    };
    let scaling = at_load(&[of(1, 100.0), of(2, 190.0), of(4, 340.0)]);
    let usl = scaling.fits.iter().find(|f| f.law == LawName::Usl).unwrap();
    let [low, high] = usl.next.gain.range.unwrap();
    assert!(low < usl.next.gain.point && usl.next.gain.point < high, "{usl:?}");
    assert!(usl.misfit < 1e-9, "two parameters through two sizes");
}

#[test]
fn more_than_ideal_is_marked_unless_chance_explains_it() {
    let base = size("a", shape(1, 1, 1, &[]), 8.0, 100.0);
    let over = size("b", shape(2, 2, 1, &[]), 8.0, 220.0);
    let step = |m: Measured| at_load(&[base.clone(), m]).steps[1].clone();
    assert!(step(over.clone()).has("above_ideal"));
    let unsure = Measured { ratio_range: Some([1.9, 2.5]), ..over };
    assert!(!step(unsure).has("above_ideal"));
}

#[test]
fn a_point_that_is_not_trusted_keeps_its_row_and_counts_for_nothing() {
    let base = size("a", shape(1, 1, 1, &[]), 8.0, 100.0);
    let over = size("b", shape(2, 2, 1, &[]), 8.0, 150.0);
    let scaling = at_load(&[base, Measured { trust: TrustLevel::Invalid, ..over }]);
    assert_eq!((codes(&scaling.steps[1]), scaling.steps[1].counts), (vec!["not_trusted"], false));
}

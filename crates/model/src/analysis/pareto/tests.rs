use super::read_out::{own_front, read};
use super::*;
use proptest::prelude::*;

const HIGH: Axes = Axes { x: Better::Higher, y: Better::Higher };
const LATENCY: Axes = Axes { x: Better::Lower, y: Better::Higher };

fn point(deployment: &str, level: u32, x: f64, y: f64, trust: TrustLevel) -> FrontPoint {
    FrontPoint {
        deployment: deployment.to_owned(),
        load: "conc".to_owned(),
        level: format!("c{level}"),
        x: Some(x),
        y: Some(y),
        is_on_front: false,
        trust,
    }
}

fn sound(deployment: &str, level: u32, x: f64, y: f64) -> FrontPoint {
    point(deployment, level, x, y, TrustLevel::Sound)
}

#[test]
fn directions_are_those_of_the_metrics() {
    assert_eq!(Axes::of(USUAL_X, USUAL_Y), Some(HIGH));
    assert_eq!(Axes::of("ttft.p99", "rps"), Some(LATENCY));
    assert_eq!(Axes::of("requests", "rps"), None);
    assert_eq!(Axes::of("nothing", "rps"), None);
}

/// Upstream's rule of seed 3 (`>=` in both) lets two equal points beat each other, and both vanish.
#[test]
fn equal_points_are_both_kept() {
    let points = [(40.0, 100.0), (40.0, 100.0), (30.0, 150.0), (40.0, 90.0), (25.0, 150.0)];
    assert_eq!(HIGH.front(&points), [true, true, true, false, false]);
}

#[test]
fn less_is_better_where_the_metric_says_so() {
    let points = [(100.0, 10.0), (200.0, 20.0), (300.0, 15.0), (0.0, 1.0), (-0.0, 2.0)];
    assert_eq!(LATENCY.front(&points), [true, true, false, false, true]);
}

#[test]
fn what_is_not_trusted_neither_stands_on_a_front_nor_beats_another() {
    let mut points = [
        point("a", 1, 50.0, 500.0, TrustLevel::Invalid),
        sound("a", 2, 40.0, 100.0),
        point("b", 1, 30.0, 120.0, TrustLevel::Caution),
        FrontPoint { y: None, ..sound("b", 2, 99.0, 0.0) },
    ];
    mark(&mut points, HIGH);
    assert_eq!(points.map(|p| p.is_on_front), [false, true, true, false]);
}

#[test]
fn a_target_is_read_between_two_points_of_each_deployment() {
    let points = [
        sound("a", 1, 50.0, 100.0),
        sound("a", 4, 30.0, 300.0),
        sound("a", 16, 20.0, 400.0),
        // Beyond its capacity: worse on both, and nothing that anybody would run.
        sound("a", 64, 18.0, 380.0),
        sound("b", 1, 40.0, 80.0),
        sound("b", 4, 30.0, 150.0),
        sound("c", 1, 25.0, 90.0),
        point("d", 1, 30.0, 900.0, TrustLevel::Invalid),
    ];
    let reads = read_out::all(&points, HIGH, ("interactivity_tps", 30.0), Some("a"));
    let told: Vec<(&str, Option<f64>, Option<f64>)> =
        reads.iter().map(|r| (r.deployment.as_str(), r.y, r.ratio)).collect();
    assert_eq!(told[0], ("a", Some(300.0), None), "at a point it is measured");
    assert_eq!(told[1], ("b", Some(150.0), Some(0.5)));
    assert_eq!((told[2], told[3]), (("c", None, None), ("d", None, None)));
    assert_eq!(reads[0].between.len(), 1);
    assert!(reads[2].absent.as_ref().unwrap().contains("between 25.0 (conc c1) and 25.0"));
    assert_eq!(reads[3].absent.as_deref(), Some("none of its points can be relied on"));

    let reads = read_out::all(&points, HIGH, ("interactivity_tps", 35.0), Some("a"));
    let levels: Vec<&str> = reads[0].between.iter().map(|n| n.level.as_str()).collect();
    assert_eq!(levels, ["c4", "c1"], "by place on the axis");
    let y = reads[0].y.unwrap();
    assert!(100.0 < y && y < 300.0, "{y}");
    let reads = read_out::all(&points, HIGH, ("interactivity_tps", 19.0), Some("a"));
    assert_eq!(reads[0].y, None, "below 20 the deployment gives no more for less: {reads:?}");
}

/// Coarse places, so that many are equal.
fn places() -> impl Strategy<Value = Vec<(f64, f64)>> {
    let place = (0_i32..8, 0_i32..8).prop_map(|(x, y)| (f64::from(x), f64::from(y)));
    prop::collection::vec(place, 0..40)
}

fn axes() -> impl Strategy<Value = Axes> {
    let better = prop_oneof![Just(Better::Higher), Just(Better::Lower)];
    (better.clone(), better).prop_map(|(x, y)| Axes { x, y })
}

proptest! {
    #[test]
    fn a_front_is_what_nothing_beats_and_beats_all_else(points in places(), axes in axes()) {
        let front = axes.front(&points);
        let on = || points.iter().zip(&front).filter(|(_, on)| **on).map(|(p, _)| *p);
        for (point, is_on) in points.iter().zip(&front) {
            let is_beaten = points.iter().any(|other| axes.beats(*other, *point));
            prop_assert_eq!(*is_on, !is_beaten, "{:?}", point);
            prop_assert!(*is_on || on().any(|p| axes.beats(p, *point)), "beaten by the front");
        }
        prop_assert!(points.is_empty() || on().next().is_some());
    }

    #[test]
    fn the_order_of_points_changes_nothing(
        (points, shuffled) in places().prop_flat_map(|p| {
            let order: Vec<usize> = (0..p.len()).collect();
            (Just(p), Just(order).prop_shuffle())
        }),
        axes in axes(),
    ) {
        let front = axes.front(&points);
        let moved: Vec<(f64, f64)> = shuffled.iter().map(|i| points[*i]).collect();
        for (i, is_on) in shuffled.iter().zip(axes.front(&moved)) {
            prop_assert_eq!(is_on, front[*i]);
        }
    }

    #[test]
    fn a_read_out_goes_one_way_and_never_leaves_what_was_measured(
        points in places(), axes in axes(), at in -2.0_f64..10.0, more in 0.0_f64..3.0,
    ) {
        let owned: Vec<FrontPoint> =
            points.iter().zip(0..).map(|(p, i)| sound("a", i, p.0, p.1)).collect();
        let curve = own_front(&owned.iter().collect::<Vec<_>>(), axes);
        let (low, high) = (read(&curve, at), read(&curve, at + more));
        if let (Some(first), Some(last)) = (curve.first(), curve.last()) {
            prop_assert_eq!(low.is_some(), first.x <= at && at <= last.x);
        }
        // Where better and better lie on opposite sides, more of the one is less of the other.
        let falls = axes.x == axes.y;
        if let (Some((a, _)), Some((b, _))) = (&low, &high) {
            prop_assert!(if falls { *b <= a + 1e-9 } else { *b >= a - 1e-9 }, "{a} {b}");
        }
        for n in &curve {
            prop_assert_eq!(read(&curve, n.x).map(|r| r.0), Some(n.y));
        }
    }
}

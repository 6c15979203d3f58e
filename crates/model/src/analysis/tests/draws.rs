//! What counts once where sides have unlike numbers of bring-ups, and what is then said to be in no interval.

use super::*;
use crate::results::Drawn;

/// Trials of 60 requests, each with the bring-up that it is of and its time per token.
fn trials(of: &[(u32, u64)]) -> Vec<TrialRecords> {
    let one = |(n, (bring_up, us)): (u32, &(u32, u64))| {
        let facts = TrialFacts { bring_up: Some(*bring_up), ..TrialFacts::default() };
        TrialRecords { facts, ..trial(n, 60, *us, 1) }
    };
    (1..).zip(of).map(one).collect()
}

/// The only bring-up of a side must not hide how unlike its trials are, behind a steady other side.
#[test]
fn a_single_bring_up_is_not_counted_and_its_trials_keep_their_spread() {
    let unlike = [(1, 700), (1, 1_000), (1, 1_300), (1, 1_600)];
    let steady = [(1, 1_400), (2, 1_404), (3, 1_396), (4, 1_402)];
    let found = weigh(trials(&unlike), trials(&steady), [4, 4]);
    let c = comparison(&found, "output_tps");
    assert_eq!((c.drawn, c.verdict), (Drawn::Trials, ComparisonVerdict::NoDifferenceSeen));
    assert!(c.ratio.method.starts_with("Welch over 4 and 4 trials"), "{c:?}");
    assert!(c.ratio.high / c.ratio.low > 1.5, "{c:?}");
    let said = &found.verdicts[0].more;
    assert!(said.iter().any(|s| s.contains("a side has only one of them")), "{said:?}");

    // With two a side they are what counts, and nothing is left out.
    let two = [(1, 1_000), (1, 1_010), (2, 1_040), (2, 1_050)];
    let found = weigh(trials(&two), trials(&steady), [4, 4]);
    let c = comparison(&found, "output_tps");
    assert_eq!(c.drawn, Drawn::BringUps);
    assert!(c.ratio.method.starts_with("Student over 4 and 2 bring-ups"), "{c:?}");
    let said = &found.verdicts[0].more;
    assert!(!said.iter().any(|s| s.contains("in no interval")), "{said:?}");
}

/// A bring-up of three trials weighs as one, the values shown weigh each trial: where that shows, it is said.
#[test]
fn a_ratio_that_is_not_that_of_the_values_beside_it_says_so() {
    let uneven = [(1, 1_000), (2, 2_000), (2, 2_000), (2, 2_000)];
    let even = [(1, 1_000), (1, 1_000), (2, 1_000), (2, 1_000)];
    let found = weigh(trials(&uneven), trials(&even), [4, 4]);
    let c = comparison(&found, "tpot.p50");
    let of_values = c.baseline_value / c.value;
    assert!((c.ratio.point.recip() - of_values).abs() > 0.2, "{c:?}");
    let words = "the values shown are of all trials taken together (their ratio: 0.5";
    assert!(c.ratio.method.contains(words), "{c:?}");
    let found = weigh(trials(&even), trials(&even), [4, 4]);
    assert!(!comparison(&found, "tpot.p50").ratio.method.contains("values shown"));
}

#[test]
fn pairs_whose_bring_ups_are_in_no_interval_are_named() {
    let of = |name: &str| (deployment(name, 4), point_plan(name, 2, 4));
    let all = ["a", "b", "c"].map(of);
    let plan = plan(all.iter().map(|(d, _)| d.clone()).collect());
    let several = |us: u64| trials(&[(1, us), (2, us + 2), (3, us - 2), (4, us + 1)]);
    let one = |us: u64| trials(&[(1, us), (1, us + 2), (1, us - 2), (1, us + 1)]);
    let said = |records: [Vec<TrialRecords>; 3]| {
        let points: Vec<_> = all
            .iter()
            .zip(records)
            .map(|((_, point), trials)| MeasuredPoint { plan: point, trials })
            .collect();
        let found = analyse(&plan, &points, &Frame { run: "r", ..Frame::default() });
        let mut more = found.verdicts[0].more.clone();
        more.retain(|s| s.contains("in no interval"));
        more
    };
    let some = said([several(1_000), several(1_200), one(1_400)]);
    assert_eq!(some.len(), 1, "{some:?}");
    assert!(some[0].contains("is in no interval between a and c, since"), "{some:?}");
    let every = said([several(1_000), one(1_200), one(1_400)]);
    assert!(every[0].contains("is in no interval, since"), "{every:?}");
    assert!(said([several(1_000), several(1_200), several(1_400)]).is_empty());
}

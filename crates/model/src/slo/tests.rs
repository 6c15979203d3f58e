//! Objectives read, and held against requests whose instants are known.

use super::*;
use crate::request::Phase;

fn parse(texts: &[&str]) -> Result<Slo, String> {
    let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
    Slo::parse(&texts).map_err(|e| format!("{}: {} ({})", e.index, e.message, e.hint))
}

#[test]
fn bounds_and_presets_are_read() {
    let slo = parse(&["ttft.p99 <= 450ms", "tpot<40ms", "e2e_ms.p999 <= 30s", "ttft.max<=2s"]);
    assert_eq!(
        slo.unwrap().to_string(),
        "ttft.p99 <= 450 ms, tpot.p99 <= 40.0 ms, e2e.p999 <= 30.0 s, ttft.max <= 2.00 s"
    );
    let slo = parse(&["mlperf-llama2-70b-interactive"]).unwrap();
    assert_eq!(
        slo.to_string(),
        "mlperf-llama2-70b-interactive: ttft.p99 <= 450 ms, tpot.p99 <= 40.0 ms"
    );
    let both = parse(&["mlperf-llama2-70b", "e2e.p50 <= 9s"]).unwrap();
    assert_eq!((both.preset, both.bounds.len()), (None, 3));
}

#[test]
fn what_is_no_objective_is_told_with_its_place_and_a_hint() {
    for (texts, want) in [
        (
            &["mlperf-llama2-70b-interactiv"][..],
            "0: 'mlperf-llama2-70b-interactiv' is no bound and no preset of an SLO (did you mean 'mlperf-llama2-70b-interactive'?)",
        ),
        (
            &["ttft <= 1s", "ttft.p99 >= 1s"],
            "1: 'ttft.p99 >= 1s' bounds no latency from above (write for example \"ttft.p99 <= 450ms\")",
        ),
        (
            &["itl.p99 <= 1s"],
            "0: 'itl' cannot be bounded by an SLO (use tpot, the mean gap of a request: a gap belongs to no request alone)",
        ),
        (
            &["rps <= 5s"],
            "0: 'rps' cannot be bounded by an SLO (ttft, tpot and e2e can be bounded; for other metrics write an [[expect]])",
        ),
        (
            &["ttft.mean <= 1s"],
            "0: 'mean' is no percentile (write p50, p95, p99, p999 (99.9 %), or max for every request)",
        ),
        (
            &["ttft.p100 <= 1s"],
            "0: 'p100' is no percentile (write p50, p95, p99, p999 (99.9 %), or max for every request)",
        ),
        (
            &["ttft.p99 <= 450"],
            "0: '450' has no unit; write for example \"30s\" or \"5m\" (write for example \"ttft.p99 <= 450ms\")",
        ),
        (
            &["ttft <= 0ms"],
            "0: a limit must be above zero (write for example \"ttft.p99 <= 450ms\")",
        ),
    ] {
        assert_eq!(parse(texts).unwrap_err(), want);
    }
    assert!(parse(&["fast"]).unwrap_err().contains("or one of mlperf-llama2-70b, "));
}

/// Holds over the whole catalogue, so that an entry cannot be added wrongly.
#[test]
fn every_preset_is_an_objective_under_a_name_of_its_own() {
    for (i, preset) in PRESETS.iter().enumerate() {
        let slo = parse(&[preset.name]).unwrap();
        assert_eq!(slo.preset.as_deref(), Some(preset.name));
        assert!(PRESETS[..i].iter().all(|p| p.name != preset.name), "{}", preset.name);
        assert!(preset.ttft_ms > preset.tpot_ms && preset.tpot_ms > 0, "{}", preset.name);
        // What it shows of itself is what a file may say.
        let said: Vec<String> = slo.bounds.iter().map(Bound::to_string).collect();
        assert_eq!(Slo::parse(&said).unwrap().bounds, slo.bounds);
        // Interactive is the stricter twin of the plain one.
        if let Some(plain) = preset.name.strip_suffix("-interactive") {
            let plain = PRESETS.iter().find(|p| p.name == plain).unwrap();
            assert!(preset.ttft_ms < plain.ttft_ms && preset.tpot_ms < plain.tpot_ms);
        }
    }
}

/// Due at 1000 ms, first token after `ttft` ms, then one every `tpot` ms.
fn request(ttft: u64, tpot: u64, tokens: u32) -> RequestRecord {
    let ms = Nanos::from_millis;
    let mut r = RequestRecord::new(0, Phase::Measure, 0, ms(1_000));
    r.sent_at = Some(ms(1_000));
    r.first_token_at = Some(ms(1_000 + ttft));
    r.last_token_at = Some(ms(1_000 + ttft + u64::from(tokens - 1) * tpot));
    r.finished_at = ms(1_000 + ttft + u64::from(tokens - 1) * tpot);
    r.output_tokens = Some(tokens);
    r.outcome = Outcome::Completed;
    r
}

#[test]
fn a_request_is_good_within_every_limit_and_only_when_it_was_completed() {
    let slo = parse(&["ttft.p99 <= 100ms", "ttft.p50 <= 50ms", "tpot <= 10ms"]).unwrap();
    assert!(slo.is_good(&request(100, 10, 5)), "at the limits, the loosest of the two for TTFT");
    assert!(!slo.is_good(&request(101, 10, 5)));
    assert!(!slo.is_good(&request(100, 11, 5)));
    assert!(slo.is_good(&request(100, 0, 1)), "one token has no time between tokens");
    let mut lost = request(10, 1, 5);
    lost.outcome = Outcome::Failed;
    assert!(!slo.is_good(&lost));
    let mut whole = request(10, 1, 5);
    whole.first_token_at = None;
    assert!(!slo.is_good(&whole), "an answer that came whole shows no TTFT");
    let mut unknown = request(10, 1, 5);
    unknown.output_tokens = None;
    assert!(!slo.is_good(&unknown), "what is not known is not met");
}

#[test]
fn counts_leave_out_what_the_client_gave_up_and_keep_what_was_lost() {
    let slo = parse(&["ttft.p50 <= 100ms", "tpot.p50 <= 10ms"]).unwrap();
    let mut dropped = request(10, 1, 5);
    dropped.outcome = Outcome::Dropped;
    let mut abandoned = request(10, 1, 5);
    abandoned.outcome = Outcome::Abandoned;
    let records = [request(90, 5, 5), request(200, 5, 5), request(90, 0, 1), dropped, abandoned];
    assert_eq!(slo.good(&records), Tally { within: 2, of: 4 });
    let tallies = slo.tallies(&records);
    assert_eq!(tallies, [Tally { within: 2, of: 4 }, Tally { within: 2, of: 3 }]);
    assert_eq!(slo.bounds[0].seen_ms(&records), Some(90.0), "the second of four");
    let max = Bound { percentile: 100.0, ..slo.bounds[0] };
    assert_eq!(max.seen_ms(&records), None, "one was never answered");
}

#[test]
fn a_verdict_is_sure_where_chance_does_not_explain_the_count() {
    let bound = parse(&["ttft.p99 <= 1s"]).unwrap().bounds[0];
    let judge = |within, of| {
        let j = bound.judge(Tally { within, of });
        (j.holds, j.is_sure)
    };
    // 0.99^298 = 5.003 %, 0.99^299 = 4.953 %.
    assert_eq!(bound.fewest_to_be_sure(), Some(299));
    assert_eq!(judge(298, 298), (true, false));
    assert_eq!(judge(299, 299), (true, true));
    assert_eq!(judge(990, 1_000), (true, false), "at the bound itself nothing is sure");
    assert_eq!(judge(989, 1_000), (false, false));
    assert_eq!(judge(95, 100), (false, true));
    assert_eq!(judge(0, 0), (false, false));
    let all = Bound { percentile: 100.0, ..bound };
    assert_eq!(all.fewest_to_be_sure(), None);
    assert!(all.judge(Tally { within: 9, of: 10 }).is_sure, "one is enough against all");
}

#[test]
fn an_objective_holds_surely_where_all_do_and_fails_surely_where_one_does() {
    let slo = parse(&["ttft.p50 <= 1s", "tpot.p50 <= 1s"]).unwrap();
    let tally = |within| Tally { within, of: 100 };
    let judge = |a, b| {
        let j = slo.judge(&[tally(a), tally(b)]);
        (j.holds, j.is_sure)
    };
    assert_eq!(judge(90, 90), (true, true));
    assert_eq!(judge(90, 52), (true, false));
    assert_eq!(judge(90, 48), (false, false));
    assert_eq!(judge(90, 10), (false, true));
    assert_eq!(judge(52, 10), (false, true));
}

//! The stamps against the truth: what the server wrote when, by the same clock.

use crate::support::{Bench, Server, median};
use scalebeam_model::arrival::ArrivalKind;
use scalebeam_model::driver::LoadShape;
use scalebeam_model::request::{Outcome, RequestRecord};

/// Median differences in milliseconds: client minus server.
#[derive(Debug)]
struct Errors {
    ttft: f64,
    itl: f64,
    e2e: f64,
    /// From a write to the stamp of the read that brought it.
    lag: f64,
}

/// Compares every request with the server's own log of it.
fn compare(server: &Server, records: &[RequestRecord]) -> Errors {
    let truth = server.truth(records.len());
    let [mut ttft, mut itl, mut e2e, mut lag] = [const { Vec::new() }; 4];
    for r in records {
        let t = &truth[&r.index];
        assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure);
        assert_eq!(u64::from(r.output_tokens.unwrap()), t.tokens);
        assert_eq!(u64::from(r.chunks()), t.writes.len() as u64);
        let sent = r.sent_at.unwrap();
        let (first, last) = (t.writes[0], t.writes[t.writes.len() - 1]);
        // What the server calls its first token is counted from when it had read the request; the
        // request's way there is part of what a client sees, and on a loopback next to nothing.
        ttft.push(r.first_token_at.unwrap().millis_after(sent) - first.millis_after(t.received));
        e2e.push(r.last_token_at.unwrap().millis_after(sent) - last.millis_after(t.received));
        if r.arrivals.len() == t.writes.len() {
            let ours = r.arrivals.windows(2).map(|w| w[1].at.millis_after(w[0].at));
            let theirs = t.writes.windows(2).map(|w| w[1].millis_after(w[0]));
            lag.extend(r.arrivals.iter().zip(&t.writes).map(|(a, w)| a.at.millis_after(*w)));
            itl.extend(ours.zip(theirs).map(|(a, b)| a - b));
        }
    }
    Errors { ttft: median(ttft), itl: median(itl), e2e: median(e2e), lag: median(lag) }
}

#[test]
fn sixty_four_streams_are_stamped_as_the_server_wrote_them() {
    // 100 requests a second of 640 ms each: 64 at a time, and no two begin together. All at once
    // would queue in the server, which takes milliseconds to read 64 requests and calls none late.
    let server = Server::start(&["--ttft-ms=40", "--itl-ms=25"]);
    let mut bench = Bench::new(&server.url(), "plain");
    let arrival = ArrivalKind::Constant;
    bench.plan.shape = LoadShape::open(arrival, 100.0, 1);
    bench.plan.requests = Some(200);
    bench.max_tokens = 25;
    let (records, _) = bench.run();
    assert_eq!(records.len(), 200);
    assert!(reached(&records) >= 55, "{} at a time", reached(&records));
    let errors = compare(&server, &records);
    println!("{errors:?}");
    assert!(errors.itl.abs() < 0.5, "{errors:?}");
    assert!(errors.ttft.abs() < 1.0 && errors.e2e.abs() < 1.0, "{errors:?}");
}

/// The most requests that were in flight at a time.
fn reached(records: &[RequestRecord]) -> usize {
    let in_flight_at = |at| {
        let has_begun = |r: &&RequestRecord| r.sent_at.is_some_and(|sent| sent <= at);
        records.iter().filter(has_begun).filter(|r| r.finished_at > at).count()
    };
    records.iter().filter_map(|r| r.sent_at).map(in_flight_at).max().unwrap_or(0)
}

#[test]
fn streams_in_lockstep_are_read_soon_after_they_were_written() {
    let server = Server::start(&["--ttft-ms=40", "--itl-ms=25"]);
    let mut bench = Bench::new(&server.url(), "plain").closed(64, 128);
    bench.max_tokens = 24;
    let (records, _) = bench.run();
    let errors = compare(&server, &records);
    println!("{errors:?}");
    assert!(errors.lag >= 0.0 && errors.lag < 1.0, "{errors:?}");
    assert!(errors.itl.abs() < 0.5, "{errors:?}");
}

#[test]
fn a_stamp_is_never_before_the_write_it_stamps() {
    for model in ["plain", "role-first", "k-tokens", "byte-split", "utf8-cut", "cr-split"] {
        let server = Server::start(&["--ttft-ms=10", "--itl-ms=5"]);
        let mut bench = Bench::new(&server.url(), model).closed(2, 4);
        bench.max_tokens = 8;
        let (records, _) = bench.run();
        let truth = server.truth(records.len());
        for r in &records {
            let writes = &truth[&r.index].writes;
            let mut due = writes.iter();
            for arrival in &r.arrivals {
                for _ in 0..arrival.chunks {
                    let write = due.next().unwrap();
                    assert!(arrival.at >= *write, "{model}: {:?} before {write:?}", arrival.at);
                }
            }
            assert_eq!(due.next(), None, "{model}");
        }
    }
}

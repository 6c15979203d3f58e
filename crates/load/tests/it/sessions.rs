//! Turns of sessions against a server that logs what it was sent.

use crate::support::{Bench, Server};
use scalebeam_load::Control;
use scalebeam_model::driver::{SessionPlan, Think, Turn, Turns};
use scalebeam_model::request::{FailureClass, Outcome, RequestRecord};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, History, Lengths, Prompt, Source, Spread, Talk, TurnContent};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

const TURNS: u64 = 3;

/// Text with everything in it that JSON must escape.
fn user_says(Turn { session, number }: Turn) -> String {
    format!("s{session} \"t{number}\"\n\u{e9}")
}

fn content(turn: Turn) -> TurnContent {
    let prompt = Prompt {
        class: "talk".to_owned(),
        texts: vec![user_says(turn)],
        asked_input_tokens: None,
        max_tokens: 5,
    };
    TurnContent { prompt, system: None, planned_answer: None }
}

fn planned(turn: Turn) -> TurnContent {
    let planned_answer = Some(format!("as planned {}", turn.number));
    TurnContent { system: Some("be brief".to_owned()), planned_answer, ..content(turn) }
}

fn sessions(server: &Server, model: &str, turns: u64, think: Option<Think>) -> Bench {
    let mut bench = Bench::new(&server.url(), model);
    let spread = |mean| Spread { mean, dist: None };
    bench.workload.source = Source::Sessions {
        history: History::Real,
        talk: Talk::Synthetic {
            lengths: Lengths::fixed(8, 5),
            turns: spread(3),
            turn_isl: spread(4),
        },
    };
    let turns = Turns::Fixed(u32::try_from(turns).unwrap());
    bench.plan.sessions = Some(SessionPlan { think, sticky: true, turns });
    bench.turns = Some(content);
    bench
}

/// What a chat client sends as turn `number`, by the server's own words.
fn messages(log: &std::collections::HashMap<u64, Value>, first: u64, number: u64) -> Vec<Value> {
    let session = first / TURNS;
    let say = |number| user_says(Turn { session, number: u32::try_from(number).unwrap() });
    let mut all = Vec::new();
    for n in 0..number {
        let answer = log[&(first + n)]["text"].as_str().unwrap();
        all.push(json!({ "role": "user", "content": say(n) }));
        all.push(json!({ "role": "assistant", "content": answer }));
    }
    all.push(json!({ "role": "user", "content": say(number) }));
    all
}

#[test]
fn each_turn_carries_to_the_byte_what_was_said_before_in_every_family() {
    for api in Api::ALL.into_iter().filter(|api| api.takes_history()) {
        let server = Server::start(&["--ttft-ms=5", "--itl-ms=1", "--log-bodies"]);
        let bench = sessions(&server, "varied", TURNS, None).of(api).closed(2, 4 * TURNS);
        let (records, _) = bench.run();
        let log = server.log(records.len());
        for r in &records {
            let what = format!("{} {}", api.name(), r.index);
            assert_eq!(r.outcome, Outcome::Completed, "{what}: {:?}", r.failure);
            let number = r.index % TURNS;
            assert_eq!((r.session, r.turn), (Some(r.index / TURNS), u32::try_from(number).ok()));
            assert_eq!(r.class, "talk");
            let said = messages(&log, r.index - number, number);
            let body = &log[&r.index]["body"];
            let list = Value::from(said.clone());
            match api {
                Api::Chat | Api::Messages | Api::OllamaChat => {
                    assert_eq!(body["messages"], list, "{what}");
                }
                Api::Responses if number > 0 => assert_eq!(body["input"], list, "{what}"),
                Api::Responses => assert_eq!(body["input"], said[0]["content"], "{what}"),
                _ => {
                    let rounds = said.chunks(2).map(|round| {
                        let texts = round.iter().map(|m| m["content"].as_str().unwrap());
                        texts.collect::<String>()
                    });
                    let whole = rounds.collect::<Vec<_>>().join("\n");
                    let keys = ["prompt", "inputs", "text"];
                    let sent = keys.into_iter().find_map(|key| body.get(key)).unwrap();
                    assert_eq!(sent, &Value::from(whole), "{what}");
                }
            }
        }
    }
}

fn by_turn(records: &[RequestRecord], index: u64) -> &RequestRecord {
    records.iter().find(|r| r.index == index).unwrap()
}

#[test]
fn a_turn_is_due_when_the_one_before_it_has_ended_and_was_thought_about() {
    let server = Server::start(&["--ttft-ms=10", "--itl-ms=2", "--log-bodies"]);
    let think = Think::Fixed { span: Nanos::from_millis(30) };
    for shards in [1, 2] {
        let mut bench = sessions(&server, "plain", TURNS, Some(think)).closed(4, 6 * TURNS);
        bench.shards = shards;
        let (records, _) = bench.run();
        assert_eq!(records.len() as u64, 6 * TURNS);
        for pair in records.windows(2).filter(|p| p[0].session == p[1].session) {
            let due = pair[0].finished_at + Nanos::from_millis(30);
            assert_eq!(pair[1].scheduled_at, due, "{pair:?}");
            assert!(pair[1].sent_at.unwrap() >= due);
            assert_eq!(pair[1].worker, pair[0].worker, "a session stays on its thread");
        }
    }
}

#[test]
fn a_session_ends_with_a_turn_that_failed_and_its_other_turns_are_on_record() {
    let server = Server::start(&["--ttft-ms=5", "--itl-ms=1", "--log-bodies"]);
    let (records, _) = sessions(&server, "500-third-turn", 5, None).closed(2, 10).run();
    for session in 0..2 {
        let outcome = |turn| by_turn(&records, 5 * session + turn).outcome;
        let dropped = Outcome::Dropped;
        let want = [Outcome::Completed, Outcome::Completed, Outcome::Failed, dropped, dropped];
        assert_eq!([0, 1, 2, 3, 4].map(outcome), want);
        let lost = by_turn(&records, 5 * session + 2);
        for turn in [3, 4] {
            let r = by_turn(&records, 5 * session + turn);
            assert_eq!(r.failure.as_ref().unwrap().class, FailureClass::SessionEnded);
            assert_eq!((r.scheduled_at, r.sent_at), (lost.finished_at, None));
            assert_eq!((r.session, r.class.as_str()), (Some(session), "talk"));
        }
    }
}

#[test]
fn reasoning_is_not_sent_back_and_a_planned_history_is_what_was_planned() {
    let server = Server::start(&["--ttft-ms=5", "--itl-ms=1", "--log-bodies"]);
    sessions(&server, "reasoning", 2, None).closed(1, 2).run();
    let log = server.log(2);
    assert_eq!(log[&1]["body"]["messages"][1]["content"], " w3 w4", "the first three are thoughts");

    let server = Server::start(&["--ttft-ms=5", "--itl-ms=1", "--log-bodies"]);
    let mut bench = sessions(&server, "plain", 2, None).closed(1, 2);
    bench.turns = Some(planned);
    bench.run();
    let log = server.log(2);
    let messages = log[&1]["body"]["messages"].as_array().unwrap();
    let texts: Vec<&str> = messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
    let (first, second) = (Turn { session: 0, number: 0 }, Turn { session: 0, number: 1 });
    assert_eq!(texts, ["be brief", &*user_says(first), "as planned 0", &*user_says(second)]);
    assert_eq!(messages[0]["role"], "system");
}

#[test]
fn told_to_stop_every_turn_of_every_session_that_was_begun_is_on_record() {
    let server = Server::start(&["--ttft-ms=20", "--itl-ms=10", "--log-bodies"]);
    let think = Think::Fixed { span: Nanos::from_millis(20) };
    let bench = sessions(&server, "varied", 50, Some(think)).closed(3, 50 * 20);
    for abort in [false, true] {
        let control = Control::new();
        let hand = control.clone();
        let stopper = thread::spawn(move || {
            while hand.progress().finished < 7 {
                thread::sleep(Duration::from_millis(2));
            }
            if abort { hand.abort() } else { hand.stop() }
        });
        let (records, _) = bench.run_under(&control);
        stopper.join().unwrap();
        let indices: Vec<u64> = records.iter().map(|r| r.index).collect();
        assert_eq!(indices, (0..150).collect::<Vec<_>>());
        let of = |outcome| records.iter().filter(|r| r.outcome == outcome).count();
        assert!(of(Outcome::Completed) >= 7);
        assert_eq!(of(Outcome::Completed) + of(Outcome::Cancelled) + of(Outcome::Dropped), 150);
        let dropped = records.iter().filter(|r| r.outcome == Outcome::Dropped);
        let never_sent =
            |r: &RequestRecord| r.failure.as_ref().unwrap().class == FailureClass::NeverSent;
        assert!(dropped.clone().count() > 50 && dropped.clone().all(never_sent));
    }
}

#[test]
fn a_turn_that_takes_long_to_write_delays_no_other_stream() {
    let server = Server::start(&["--ttft-ms=5", "--itl-ms=1", "--log-bodies"]);
    let mut bench = sessions(&server, "plain", 2, None).closed(2, 4);
    bench.turns = Some(|turn| {
        // Only session 0's second turn is slow, wherever it is written.
        if turn == (Turn { session: 0, number: 1 }) {
            thread::sleep(Duration::from_millis(400));
        }
        content(turn)
    });
    let (records, _) = bench.run();
    let slow = by_turn(&records, 1);
    let wrote = slow.sent_at.unwrap().since(slow.scheduled_at);
    assert!(wrote >= Nanos::from_millis(400), "late on record: {wrote}");
    // Session 1 shares the thread and has its first two turns in that time.
    assert!(by_turn(&records, 2).finished_at < slow.sent_at.unwrap());
    assert!(records.iter().all(RequestRecord::is_completed));
    // Given up before it was written, it is on record as such.
    bench.plan.timeout = Nanos::from_millis(150);
    let (records, _) = bench.run();
    let slow = by_turn(&records, 1);
    assert_eq!((slow.outcome, slow.sent_at), (Outcome::TimedOut, None));
    assert_eq!((slow.class.as_str(), slow.turn), ("talk", Some(1)));
}

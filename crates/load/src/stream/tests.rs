use super::*;
use scalebeam_model::request::Phase;

const HOST: &str = "h:1";

fn answer(prompts: u32) -> Answer {
    let mut record = RequestRecord::new(0, Phase::Measure, 0, Nanos(5));
    record.prompts = prompts;
    record.asked_output_tokens = 4;
    Answer::new(record, true, true)
}

fn at(instant: u64) -> Stamp {
    Stamp::own(Nanos(instant))
}

fn arrival(instant: u64, chunks: u32) -> Arrival {
    Arrival::new(Nanos(instant), chunks, Nanos(instant))
}

fn content(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

const ROLE: &str =
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Reads one part per instant from 10 on, and ends one instant after the last.
fn run(parts: &[&str], end: End) -> Finished {
    let mut answer = answer(1);
    let mut at = 10;
    for part in parts {
        answer.read(part.as_bytes(), Stamp::own(Nanos(at))).unwrap();
        at += 1;
    }
    answer.finish(end, Nanos(at), HOST)
}

fn verdict(parts: &[&str], end: End) -> (Outcome, Option<FailureClass>) {
    let record = run(parts, end).record;
    (record.outcome, record.failure.map(|f| f.class))
}

#[test]
fn a_whole_answer_has_the_stamps_of_its_reads() {
    let two = [content("a"), content("b")].concat();
    let (c, last) = (content("\\n"), [STOP, USAGE].concat());
    let got = run(&[ROLE, &two, &c, &last, DONE], End::Whole);
    let r = got.record;
    assert_eq!(r.outcome, Outcome::Completed);
    let arrivals = [arrival(11, 2), arrival(12, 1)];
    assert_eq!(r.arrivals, arrivals);
    assert_eq!((r.first_token_at, r.last_token_at), (Some(Nanos(11)), Some(Nanos(12))));
    assert_eq!(r.finished_at, Nanos(15));
    assert_eq!((r.prompt_tokens, r.output_tokens), (Some(9), Some(3)));
    assert_eq!(r.token_source, Some(TokenSource::Usage));
    assert_eq!(r.finish_reason.as_deref(), Some("stop"));
    assert_eq!(got.texts.unwrap()[0], br#""a""b""\n""#);
}

#[test]
fn every_end_has_its_outcome() {
    use FailureClass as C;
    use Outcome as O;
    let a = content("a");
    let why = || "why".to_owned();
    let timed_out = || End::Cancelled(CancelReason::TimedOut);
    let interrupted = || End::Cancelled(CancelReason::Interrupted);
    type Case<'a> = (&'a str, Vec<&'a str>, End, (O, Option<C>));
    let table: Vec<Case<'_>> = vec![
        ("done", vec![&a, DONE], End::Whole, (O::Completed, None)),
        ("finish reason only", vec![&a, STOP], End::Whole, (O::Completed, None)),
        ("neither", vec![&a], End::Whole, (O::Truncated, Some(C::Truncated))),
        ("nothing at all", vec![], End::Whole, (O::Truncated, Some(C::Truncated))),
        ("cut", vec![&a], End::Cut(why()), (O::Truncated, Some(C::Truncated))),
        ("cut after finish", vec![&a, STOP], End::Cut(why()), (O::Truncated, Some(C::Truncated))),
        ("cut after done", vec![&a, DONE], End::Cut(why()), (O::Completed, None)),
        ("reset", vec![&a], End::Reset(why()), (O::Failed, Some(C::Reset))),
        ("reset after done", vec![&a, DONE], End::Reset(why()), (O::Completed, None)),
        ("empty", vec![ROLE, STOP, DONE], End::Whole, (O::Failed, Some(C::EmptyOutput))),
        ("timed out", vec![&a], timed_out(), (O::TimedOut, Some(C::Timeout))),
        ("timed out after done", vec![&a, DONE], timed_out(), (O::Completed, None)),
        ("interrupted", vec![&a], interrupted(), (O::Cancelled, Some(C::Interrupted))),
        ("connect", vec![], End::Connect(why()), (O::Failed, Some(C::Connect))),
        ("tls", vec![], End::Tls(why()), (O::Failed, Some(C::Tls))),
        ("not http", vec![], End::Malformed(why()), (O::Failed, Some(C::MalformedStream))),
        (
            "bad json, no finish",
            vec![&a, "data: {oops\n\n"],
            End::Whole,
            (O::Failed, Some(C::MalformedStream)),
        ),
        ("bad json, finished", vec!["data: {oops\n\n", &a, DONE], End::Whole, (O::Completed, None)),
        (
            "error event",
            vec![&a, "data: {\"error\":{\"message\":\"m\"}}\n\n", DONE],
            End::Whole,
            (O::Failed, Some(C::ServerError)),
        ),
        (
            "named error event",
            vec!["event: error\ndata: boom\n\n"],
            End::Cut(why()),
            (O::Failed, Some(C::ServerError)),
        ),
    ];
    for (name, parts, end, want) in table {
        assert_eq!(verdict(&parts, end), want, "{name}");
    }
}

#[test]
fn a_server_that_dawdles_after_done_had_answered_by_then() {
    for end in [End::Reset(String::new()), End::Cancelled(CancelReason::TimedOut)] {
        let r = run(&[&content("a"), DONE, ": ping\n\n", ": ping\n\n"], end).record;
        assert_eq!((r.outcome, r.finished_at), (Outcome::Completed, Nanos(11)));
    }
}

#[test]
fn events_that_are_no_json_are_counted() {
    let r = run(&["data: {oops\n\ndata: x\n\n", &content("a"), DONE], End::Whole).record;
    assert_eq!((r.unparsed_events, r.outcome), (2, Outcome::Completed));
}

#[test]
fn an_event_over_two_reads_belongs_to_the_read_that_completed_it() {
    let a = content("a");
    let r = run(&[&a[..20], &a[20..], DONE], End::Whole).record;
    assert_eq!(r.arrivals, [arrival(11, 1)]);
}

#[test]
fn a_batch_is_whole_when_every_prompt_is_answered() {
    let say = |i: u32, stop: &str| {
        format!("data: {{\"choices\":[{{\"index\":{i},\"text\":\"t{i}\"{stop}}}]}}\n\n")
    };
    let stop = ",\"finish_reason\":\"length\"";
    for (count, want) in [(2, Outcome::Completed), (1, Outcome::Truncated)] {
        let mut answer = answer(2);
        for i in 0..2 {
            let text = say(i, if i < count { stop } else { "" });
            answer.read(text.as_bytes(), at(10)).unwrap();
        }
        let got = answer.finish(End::Whole, Nanos(11), HOST);
        assert_eq!(got.record.outcome, want);
        assert_eq!(got.record.arrivals, [arrival(10, 2)]);
        assert_eq!(got.texts.unwrap(), [b"\"t0\"", b"\"t1\""]);
    }
}

#[test]
fn without_usage_chunks_are_counted_and_it_says_so() {
    let r = run(&[&content("a"), &content("b"), DONE], End::Whole).record;
    assert_eq!((r.output_tokens, r.token_source), (Some(2), Some(TokenSource::Chunks)));
}

#[test]
fn an_answer_without_a_stream_has_tokens_but_no_instants_of_them() {
    let mut answer = answer(1);
    answer.begin(Format::Json);
    let body = br#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":2,"completion_tokens":1}}"#;
    answer.read(&body[..30], at(10)).unwrap();
    answer.read(&body[30..], at(11)).unwrap();
    let r = answer.finish(End::Whole, Nanos(12), HOST).record;
    assert_eq!((r.outcome, r.output_tokens), (Outcome::Completed, Some(1)));
    assert_eq!((r.first_token_at, r.arrivals.len()), (None, 0));
}

#[test]
fn an_error_status_keeps_the_servers_words() {
    for (status, outcome) in
        [(429, Outcome::Rejected), (503, Outcome::Rejected), (500, Outcome::Failed)]
    {
        let mut answer = answer(1);
        answer.begin(Format::Error(status));
        answer.read(b"{\"error\":{\"message\":\"too\\n many\"}}", at(9)).unwrap();
        let r = answer.finish(End::Whole, Nanos(9), HOST).record;
        let want = Failure {
            class: FailureClass::HttpStatus,
            status: Some(status),
            detail: "h:1: too many".to_owned(),
        };
        assert_eq!((r.outcome, r.failure), (outcome, Some(want)));
    }
}

#[test]
fn a_failure_is_told_in_one_line() {
    assert_eq!(shorten("a\n b\t\tc "), "a b c");
    assert_eq!(shorten(&"\u{e9}".repeat(1000)).chars().count(), DETAIL_CHARS + 3);
}

use super::*;
use scalebeam_model::request::Phase;

const HOST: &str = "h:1";

fn answer(prompts: u32) -> Answer {
    let mut record = RequestRecord::new(0, Phase::Measure, 0, Nanos(5));
    record.prompts = prompts;
    record.asked_output_tokens = 4;
    Answer::new(record, Api::Chat, true, true)
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
    let abandoned = || End::Cancelled(CancelReason::Abandoned);
    type Case<'a> = (&'a str, Vec<&'a str>, End, (O, Option<C>));
    let table: Vec<Case<'_>> = vec![
        ("done", vec![&a, DONE], End::Whole, (O::Completed, None)),
        ("finish reason only", vec![&a, STOP], End::Whole, (O::Completed, None)),
        ("neither", vec![&a], End::Whole, (O::Truncated, Some(C::Truncated))),
        ("nothing at all", vec![], End::Whole, (O::Failed, Some(C::EmptyOutput))),
        ("cut", vec![&a], End::Cut(why()), (O::Truncated, Some(C::Truncated))),
        ("cut after finish", vec![&a, STOP], End::Cut(why()), (O::Truncated, Some(C::Truncated))),
        ("cut after done", vec![&a, DONE], End::Cut(why()), (O::Completed, None)),
        ("reset", vec![&a], End::Reset(why()), (O::Failed, Some(C::Reset))),
        ("reset after done", vec![&a, DONE], End::Reset(why()), (O::Completed, None)),
        ("empty", vec![ROLE, STOP, DONE], End::Whole, (O::Failed, Some(C::EmptyOutput))),
        ("timed out", vec![&a], timed_out(), (O::TimedOut, Some(C::Timeout))),
        ("timed out after done", vec![&a, DONE], timed_out(), (O::Completed, None)),
        ("interrupted", vec![&a], interrupted(), (O::Cancelled, Some(C::Interrupted))),
        ("abandoned", vec![&a], abandoned(), (O::Abandoned, None)),
        ("abandoned before a byte", vec![], abandoned(), (O::Abandoned, None)),
        ("abandoned after done", vec![&a, DONE], abandoned(), (O::Completed, None)),
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

/// Real transcripts, one an api: the body as a server writes it, and what must come of it.
#[derive(Clone, Copy)]
struct Transcript {
    api: Api,
    content_type: &'static str,
    body: &'static str,
    /// Prompt and output tokens, chunks with content.
    counts: (Option<u32>, Option<u32>, u32),
    reason: Option<&'static str>,
    text: &'static str,
}

const TRANSCRIPTS: [Transcript; 7] = [
    Transcript {
        api: Api::Chat,
        content_type: "application/json",
        body: "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
        counts: (Some(9), Some(1), 1),
        reason: Some("stop"),
        text: "Hi",
    },
    Transcript {
        api: Api::Responses,
        content_type: "text/event-stream",
        body: "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\"}}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\" \\u00e9\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"usage\":{\"input_tokens\":9,\"output_tokens\":2}}}\n\n",
        counts: (Some(9), Some(2), 2),
        reason: Some("completed"),
        text: "Hi \u{e9}",
    },
    Transcript {
        api: Api::Messages,
        content_type: "text/event-stream; charset=utf-8",
        body: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        counts: (Some(9), Some(3), 1),
        reason: Some("end_turn"),
        text: "Hi",
    },
    Transcript {
        api: Api::Tgi,
        content_type: "text/event-stream",
        body: "data:{\"index\":1,\"token\":{\"id\":1,\"text\":\"Hi\",\"logprob\":-0.5,\"special\":false},\"generated_text\":null,\"details\":null}\n\ndata:{\"index\":2,\"token\":{\"id\":2,\"text\":\"</s>\",\"logprob\":-0.5,\"special\":true},\"generated_text\":\"Hi\",\"details\":{\"finish_reason\":\"eos_token\",\"generated_tokens\":2,\"seed\":null,\"input_length\":9}}\n\n",
        counts: (Some(9), Some(2), 1),
        reason: Some("eos_token"),
        text: "Hi",
    },
    Transcript {
        api: Api::Sglang,
        content_type: "text/event-stream; charset=utf-8",
        body: "data: {\"text\":\"H\",\"meta_info\":{\"finish_reason\":null,\"prompt_tokens\":9,\"completion_tokens\":1,\"cached_tokens\":0}}\n\ndata: {\"text\":\"Hi\",\"meta_info\":{\"finish_reason\":null,\"prompt_tokens\":9,\"completion_tokens\":2,\"cached_tokens\":0}}\n\ndata: {\"text\":\"Hi\",\"meta_info\":{\"finish_reason\":{\"type\":\"length\",\"length\":2},\"prompt_tokens\":9,\"completion_tokens\":2,\"cached_tokens\":0}}\n\ndata: [DONE]\n\n",
        counts: (Some(9), Some(2), 2),
        reason: Some("length"),
        text: "Hi",
    },
    Transcript {
        api: Api::OllamaChat,
        content_type: "application/x-ndjson",
        body: "{\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"done\":false}\n{\"message\":{\"role\":\"assistant\",\"content\":\"!\"},\"done\":false}\n{\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":9,\"eval_count\":2}\n",
        counts: (Some(9), Some(2), 2),
        reason: Some("stop"),
        text: "Hi!",
    },
    Transcript {
        api: Api::OllamaGenerate,
        content_type: "application/json",
        body: "{\"response\":\"Hi\",\"done\":false}\n{\"response\":\"\",\"done\":true,\"done_reason\":\"length\",\"prompt_eval_count\":9,\"eval_count\":1}",
        counts: (Some(9), Some(1), 1),
        reason: Some("length"),
        text: "Hi",
    },
];

impl Transcript {
    fn answer(&self) -> Answer {
        let mut record = RequestRecord::new(0, Phase::Measure, 0, Nanos(5));
        record.asked_output_tokens = 4;
        let mut answer = Answer::new(record, self.api, true, true);
        answer.begin(format_of(200, Some(self.content_type), true).unwrap());
        answer
    }

    /// Reads the body in `parts`, one an instant from 10 on.
    fn read<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>, end: End) -> Finished {
        let mut answer = self.answer();
        let mut instant = 10;
        for part in parts {
            answer.read(part, at(instant)).unwrap();
            instant += 1;
        }
        answer.finish(end, Nanos(instant), HOST)
    }

    #[track_caller]
    fn check(&self, got: &Finished) {
        let r = &got.record;
        assert_eq!((r.outcome, &r.failure), (Outcome::Completed, &None), "{:?}", self.api);
        assert_eq!((r.prompt_tokens, r.output_tokens, r.chunks()), self.counts, "{:?}", self.api);
        assert_eq!(r.token_source, Some(TokenSource::Usage));
        assert_eq!(r.finish_reason.as_deref(), self.reason, "{:?}", self.api);
        assert_eq!(r.unparsed_events, 0, "{:?}", self.api);
        let text = &got.texts.as_ref().unwrap()[0];
        let pieces = serde_json::Deserializer::from_slice(text).into_iter::<String>();
        assert_eq!(pieces.map(Result::unwrap).collect::<String>(), self.text, "{:?}", self.api);
    }
}

#[test]
fn every_family_is_read_from_what_its_servers_send() {
    for t in &TRANSCRIPTS {
        t.check(&t.read([t.body.as_bytes()], End::Whole));
    }
}

#[test]
fn the_first_token_is_at_the_read_that_completes_its_event() {
    for t in &TRANSCRIPTS {
        // Up to the end of the first event with a text in it, then the rest.
        let first = t.body.find("H").unwrap();
        let blank = if t.body.starts_with('{') { "\n" } else { "\n\n" };
        let end = first + t.body[first..].find(blank).unwrap() + blank.len();
        let parts =
            [&t.body[..first], &t.body[first..end - 1], &t.body[end - 1..end], &t.body[end..]];
        let got = t.read(parts.map(str::as_bytes), End::Whole);
        t.check(&got);
        assert_eq!(got.record.first_token_at, Some(Nanos(12)), "{:?}", t.api);
    }
}

#[test]
fn a_stream_that_is_cut_or_fails_says_so_in_every_family() {
    for t in &TRANSCRIPTS {
        let half = t.body.find("Hi").map_or(t.body.len() / 2, |at| at + 1);
        let got = t.read([&t.body.as_bytes()[..half]], End::Cut("cut".to_owned())).record;
        assert_eq!(got.outcome, Outcome::Truncated, "{:?}", t.api);
        let error = match t.api {
            Api::OllamaChat | Api::OllamaGenerate => "{\"error\":\"boom\"}\n",
            Api::Messages => {
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"boom\"}}\n\n"
            }
            Api::Responses => "data: {\"type\":\"error\",\"message\":\"boom\"}\n\n",
            Api::Tgi => "data:{\"error\":\"boom\",\"error_type\":\"generation\"}\n\n",
            _ => "data: {\"error\":{\"message\":\"boom\"}}\n\ndata: [DONE]\n\n",
        };
        let got = t.read([error.as_bytes()], End::Whole).record;
        let failure = got.failure.unwrap();
        assert_eq!(
            (failure.class, failure.detail.as_str()),
            (FailureClass::ServerError, "h:1: boom")
        );
        assert_eq!(got.outcome, Outcome::Failed);
    }
}

#[test]
fn a_document_under_a_streams_request_has_no_instants() {
    for body in [
        "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}",
        "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n",
        "{\n \"choices\": [{\"message\":{\"content\":\"hi\"},\n\"finish_reason\":\"stop\"}]\n}\n",
    ] {
        let t = Transcript { content_type: "application/json", ..TRANSCRIPTS[0] };
        let r = t.read(body.as_bytes().chunks(7), End::Whole).record;
        assert_eq!((r.outcome, r.first_token_at), (Outcome::Completed, None), "{body}");
        assert!(r.arrivals.is_empty());
    }
}

#[test]
fn vectors_are_an_answer_without_output_tokens() {
    let answer = |body: &str| {
        let mut record = RequestRecord::new(0, Phase::Measure, 0, Nanos(5));
        record.prompts = 2;
        let mut answer = Answer::new(record, Api::Embeddings, false, true);
        answer.begin(format_of(200, Some("application/json"), false).unwrap());
        answer.read(body.as_bytes(), at(10)).unwrap();
        answer.finish(End::Whole, Nanos(11), HOST)
    };
    let got = answer(
        "{\"data\":[{\"index\":0,\"embedding\":[0.5]},{\"index\":1,\"embedding\":[1]}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":0}}",
    );
    let r = &got.record;
    assert_eq!((r.outcome, r.prompt_tokens), (Outcome::Completed, Some(7)));
    assert_eq!((r.output_tokens, r.token_source, r.first_token_at), (None, None, None));
    assert!(got.texts.unwrap().iter().all(Vec::is_empty));
    let r = answer("{\"data\":[],\"usage\":{\"prompt_tokens\":7}}").record;
    assert_eq!(r.failure.map(|f| f.class), Some(FailureClass::EmptyOutput));
}

proptest::proptest! {
    #[test]
    fn any_split_into_reads_gives_the_same_counts(
        which in 0..TRANSCRIPTS.len(),
        cuts in proptest::collection::vec(proptest::prelude::any::<proptest::sample::Index>(), 0..20),
    ) {
        let t = &TRANSCRIPTS[which];
        let body = t.body.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        t.check(&t.read(cuts.windows(2).map(|w| &body[w[0]..w[1]]), End::Whole));
    }
}

/// One event of a made-up stream, by a number.
fn some_event(kind: u8, text: &str) -> Vec<u8> {
    let text = serde_json::to_string(text).unwrap();
    let chunk = |rest: String| format!("data: {{\"id\":\"x\",{rest}}}\n\n").into_bytes();
    let delta = |inner: String| chunk(format!("\"choices\":[{{\"index\":0,{inner}}}]"));
    match kind % 8 {
        0..=3 => delta(format!("\"delta\":{{\"content\":{text}}}")),
        4 => delta(format!("\"delta\":{{\"reasoning\":{text},\"content\":{text}}}")),
        5 => delta(format!("\"delta\":{{\"content\":{text}}},\"finish_reason\":\"stop\"")),
        6 => chunk("\"choices\":[],\"usage\":{\"completion_tokens\":3}".to_owned()),
        _ => format!("data: {text}\n\n").into_bytes(),
    }
}

proptest::proptest! {
    /// Whether events are recognised or read makes no difference.
    #[test]
    fn a_pattern_changes_nothing(
        events in proptest::collection::vec((proptest::prelude::any::<u8>(), "[a-z\\PC\"\\\\ \n]{0,4}"), 0..40),
    ) {
        let (mut recognised, mut read) = (answer(1), answer(1));
        for ((kind, text), now) in events.iter().zip(10..) {
            let bytes = some_event(*kind, text);
            recognised.read(&bytes, at(now)).unwrap();
            read.progress.pattern = Pattern::default();
            read.read(&bytes, at(now)).unwrap();
        }
        let [a, b] = [recognised, read].map(|x| x.finish(End::Whole, Nanos(99), HOST));
        proptest::prop_assert_eq!(a.record, b.record);
        proptest::prop_assert_eq!(a.texts, b.texts);
    }
}

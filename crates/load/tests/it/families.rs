//! Every endpoint family against a server that speaks it and was written by somebody else.

use crate::support::{Bench, Server, clock};
use scalebeam_load::probe;
use scalebeam_model::request::{FailureClass, Outcome, TokenSource};
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::{Api, Sizing};

fn server() -> Server {
    Server::start(&["--ttft-ms=5", "--itl-ms=2", "--stall-ms=200", "--idle-close-ms=10"])
}

fn generating() -> impl Iterator<Item = Api> {
    Api::ALL.into_iter().filter(|api| api.generates())
}

/// What each family calls an answer that ran into its limit.
fn limit_reason(api: Api) -> &'static str {
    match api {
        Api::Responses => "max_output_tokens",
        Api::Messages => "max_tokens",
        _ => "length",
    }
}

#[test]
fn every_family_is_completed_with_the_servers_numbers() {
    let server = server();
    for api in generating() {
        let is_sse = !matches!(api, Api::OllamaChat | Api::OllamaGenerate);
        for (model, chunks, is_spoken) in [
            ("plain", 8, true),
            ("role-first", 8, true),
            ("k-tokens", 2, true),
            ("crlf", 8, true),
            ("byte-split", 8, true),
            ("utf8-cut", 8, true),
            ("stall", 8, true),
            ("huge", 8, true),
            ("content-length", 8, true),
            ("json-type", 8, true),
            ("keepalive-close", 8, true),
            ("comments", 8, is_sse),
            ("no-space", 8, is_sse),
            ("multi-line", 8, is_sse),
            ("disjoint", 8, api == Api::Sglang),
            ("reasoning", 8, !matches!(api, Api::Completions | Api::Tgi | Api::Sglang)),
            ("tool", 8, matches!(api, Api::Chat | Api::Responses | Api::Messages)),
        ] {
            if !is_spoken {
                continue;
            }
            let r = Bench::new(&server.url(), model).of(api).one();
            let what = format!("{} {model}", api.name());
            assert_eq!(r.outcome, Outcome::Completed, "{what}: {:?}", r.failure);
            let usage = Some(TokenSource::Usage);
            assert_eq!((r.output_tokens, r.token_source), (Some(8), usage), "{what}");
            assert_eq!(r.prompt_tokens, Some(2), "{what}");
            assert_eq!((r.chunks(), r.unparsed_events), (chunks, 0), "{what}");
            assert_eq!(
                (r.asked_output_tokens, r.forced_length),
                (8, api.can_force_len()),
                "{what}"
            );
            if model != "tool" {
                assert_eq!(r.finish_reason.as_deref(), Some(limit_reason(api)), "{what}");
            }
        }
    }
}

#[test]
fn without_counts_chunks_are_counted_in_every_family() {
    let server = server();
    // TGI has no way to leave them out.
    for api in generating().filter(|api| *api != Api::Tgi) {
        let r = Bench::new(&server.url(), "no-usage").of(api).one();
        let chunks = Some(TokenSource::Chunks);
        assert_eq!(r.outcome, Outcome::Completed, "{}: {:?}", api.name(), r.failure);
        assert_eq!((r.output_tokens, r.token_source), (Some(8), chunks), "{}", api.name());
        assert_eq!(r.prompt_tokens, None, "{}", api.name());
    }
}

#[test]
fn the_first_token_is_the_first_text_and_not_the_first_event() {
    let server = Server::start(&["--ttft-ms=80", "--itl-ms=5"]);
    // TGI begins with its first token; nothing comes before.
    for api in generating().filter(|api| *api != Api::Tgi) {
        let r = Bench::new(&server.url(), "role-first").of(api).one();
        let since_sent = |at: Option<Nanos>| at.unwrap().since(r.sent_at.unwrap());
        let early = Nanos::from_millis(70);
        assert!(since_sent(r.first_token_at) >= early, "{}", api.name());
        assert!(since_sent(r.first_byte_at) < since_sent(r.first_token_at), "{}", api.name());
    }
}

#[test]
fn every_failure_has_its_class_in_every_family() {
    use FailureClass as C;
    use Outcome as O;
    let server = server();
    for api in generating() {
        for (model, outcome, failure, chunks) in [
            ("error-event", O::Failed, C::ServerError, 3),
            ("cut", O::Truncated, C::Truncated, 3),
            ("reset", O::Failed, C::Reset, 3),
            ("429", O::Rejected, C::HttpStatus, 0),
            ("500", O::Failed, C::HttpStatus, 0),
            ("empty", O::Failed, C::EmptyOutput, 0),
        ] {
            let r = Bench::new(&server.url(), model).of(api).one();
            let what = format!("{} {model}: {:?}", api.name(), r.failure);
            let class = r.failure.as_ref().map(|f| f.class);
            assert_eq!((r.outcome, class, r.chunks()), (outcome, Some(failure), chunks), "{what}");
            if model == "error-event" {
                assert!(r.failure.unwrap().detail.ends_with("the engine died"), "{what}");
            }
        }
        let mut bench = Bench::new(&server.url(), "stall-forever").of(api);
        bench.plan.timeout = Nanos::from_millis(300);
        let r = bench.one();
        assert_eq!((r.outcome, r.chunks()), (Outcome::TimedOut, 3), "{}", api.name());
    }
}

#[test]
fn without_a_stream_every_family_has_its_text_and_counts() {
    let server = server();
    for api in generating() {
        let mut bench = Bench::new(&server.url(), "plain").of(api);
        bench.workload.stream = false;
        bench.keep_text = true;
        let (records, report) = bench.run();
        let r = &records[0];
        assert_eq!(r.outcome, Outcome::Completed, "{}: {:?}", api.name(), r.failure);
        assert_eq!((r.output_tokens, r.first_token_at), (Some(8), None), "{}", api.name());
        assert_eq!(report.texts[0].text, " w0 w1 w2 w3 w4 w5 w6 w7", "{}", api.name());
    }
}

#[test]
fn the_text_of_every_family_is_kept_as_it_was_written() {
    let server = server();
    for api in generating() {
        let mut bench = Bench::new(&server.url(), "utf8-cut").of(api);
        bench.keep_text = true;
        let (_, report) = bench.run();
        let text = &report.texts[0].text;
        assert!(text.starts_with(" \u{e9}0 \u{65e5}1 \u{1f642}2 "), "{}: {text}", api.name());
        assert!(text.ends_with("7"), "{}: {text}", api.name());
    }
}

#[test]
fn vectors_are_measured_end_to_end_and_have_no_tokens() {
    let server = server();
    let mut bench = Bench::new(&server.url(), "plain").of(Api::Embeddings);
    bench.prompts = 3;
    let r = bench.one();
    assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure);
    assert_eq!((r.prompts, r.prompt_tokens), (3, Some(6)));
    assert_eq!((r.output_tokens, r.token_source, r.first_token_at), (None, None, None));
    assert_eq!((r.asked_output_tokens, r.forced_length), (0, false));
    assert!(r.finished_at.since(r.sent_at.unwrap()) >= Nanos::from_millis(4));
    for (model, class) in [("empty", FailureClass::EmptyOutput), ("429", FailureClass::HttpStatus)]
    {
        let r = Bench::new(&server.url(), model).of(Api::Embeddings).one();
        assert_eq!(r.failure.map(|f| f.class), Some(class), "{model}");
    }
    let r = Bench::new(&server.url(), "no-usage").of(Api::Embeddings).one();
    assert_eq!((r.outcome, r.prompt_tokens), (Outcome::Completed, None));
}

#[test]
fn words_are_sized_in_every_family() {
    let server = server();
    for api in Api::ALL {
        let bench = Bench::new(&server.url(), "plain").of(api);
        let words = probe::measure_words(&clock(), &bench.endpoint, &bench.workload).unwrap();
        assert_eq!(words.sizing, Sizing::ServerUsage, "{}", api.name());
        assert!((words.tokens_per_word - 1.0).abs() < 1e-9, "{}", api.name());
    }
}

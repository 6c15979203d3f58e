use super::*;
use proptest::prelude::*;

type Owned = (String, String);

/// Feeds `parts` one by one; the limit error, if any, comes last.
fn parse(parts: &[&[u8]], limit: usize) -> (Vec<Owned>, Option<SseError>) {
    let mut parser = Parser::with_limit(limit);
    let mut events = Vec::new();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    for part in parts {
        if let Err(e) = parser.feed(part, |e| events.push((text(e.name), text(e.data)))) {
            return (events, Some(e));
        }
    }
    let end = parser.finish(|e| events.push((text(e.name), text(e.data)))).err();
    (events, end)
}

fn whole(bytes: &[u8]) -> Vec<Owned> {
    parse(&[bytes], EVENT_LIMIT).0
}

fn data(bytes: &[u8]) -> Vec<String> {
    whole(bytes).into_iter().map(|(_, data)| data).collect()
}

/// Every trap by name: what comes in, and the data that must come out.
const TRAPS: &[(&str, &[u8], &[&str])] = &[
    ("lf", b"data: a\n\ndata: b\n\n", &["a", "b"]),
    ("crlf", b"data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
    ("cr", b"data: a\r\rdata: b\r\r", &["a", "b"]),
    ("mixed line ends", b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", &["a", "b", "c"]),
    ("no space", b"data:a\n\ndata:{\"x\":1}\n\n", &["a", "{\"x\":1}"]),
    ("only one space is stripped", b"data:  a\n\n", &[" a"]),
    ("several lines", b"data: a\ndata: b\ndata:\ndata: c\n\n", &["a\nb\n\nc"]),
    ("comments", b": ping\n\n:\n\ndata: a\n: in between\ndata: b\n\n", &["a\nb"]),
    ("other fields", b"id: 7\nretry: 100\nfoo: bar\nevent: e\ndata: a\n\n", &["a"]),
    ("a field without a colon", b"data\n\ndata\ndata\n\n", &["", "\n"]),
    ("an event without data is none", b"event: ping\n\ndata: a\n\n", &["a"]),
    ("byte order mark", b"\xEF\xBB\xBFdata: a\n\n", &["a"]),
    ("a second mark is text", b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", &["a"]),
    ("no blank line at the end", b"data: a\n\ndata: b\n", &["a", "b"]),
    ("no line end at the end", b"data: a\n\ndata: b", &["a", "b"]),
    ("utf-8", "data: h\u{e9}llo \u{1f600}\n\n".as_bytes(), &["h\u{e9}llo \u{1f600}"]),
    ("blank lines between", b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", &["a", "b"]),
    ("nothing", b"", &[]),
];

#[test]
fn every_trap_gives_its_events() {
    for (name, bytes, want) in TRAPS {
        assert_eq!(data(bytes), *want, "{name}");
    }
}

#[test]
fn every_trap_cut_at_every_byte_gives_the_same_events() {
    for (name, bytes, want) in TRAPS {
        for cut in 0..=bytes.len() {
            let (events, _) = parse(&[&bytes[..cut], &bytes[cut..]], EVENT_LIMIT);
            let got: Vec<_> = events.into_iter().map(|(_, data)| data).collect();
            assert_eq!(got, *want, "{name}, cut at {cut}");
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        let got: Vec<_> =
            parse(&bytewise, EVENT_LIMIT).0.into_iter().map(|(_, data)| data).collect();
        assert_eq!(got, *want, "{name}, byte by byte");
    }
}

#[test]
fn an_event_has_its_name_and_the_next_has_none() {
    let got = whole(b"event: error\ndata: {}\n\ndata: x\n\n");
    assert_eq!(got, [("error".into(), "{}".into()), (String::new(), "x".into())]);
}

#[test]
fn an_event_is_handed_on_with_the_byte_that_completes_it() {
    let mut parser = Parser::new();
    let mut seen = 0;
    parser.feed(b"data: a\r\n\r", |_| seen += 1).unwrap();
    assert_eq!(seen, 1, "a CR ends the line; its LF need not have come");
    parser.feed(b"\ndata: b\n\n", |_| seen += 1).unwrap();
    assert_eq!(seen, 2);
}

#[test]
fn an_event_beyond_the_limit_is_an_error_and_those_before_it_are_not_lost() {
    let bytes = b"data: ok\n\ndata: 0123456789\n\n";
    for cut in 0..bytes.len() {
        let (events, error) = parse(&[&bytes[..cut], &bytes[cut..]], 15);
        assert_eq!((events.len(), error), (1, Some(SseError::TooLong(15))), "cut at {cut}");
    }
    let lines = b"data: 01234\ndata: 56789\ndata: 01234\n\n";
    assert_eq!(parse(&[lines], 17).0.len(), 1);
    assert_eq!(parse(&[lines], 16).1, Some(SseError::TooLong(16)));
}

#[test]
fn an_event_in_one_read_is_not_copied() {
    let bytes = b"data: {\"a\":1}\n\n";
    let mut parser = Parser::new();
    parser.feed(bytes, |e| assert!(bytes.as_ptr_range().contains(&e.data.as_ptr()))).unwrap();
    assert_eq!(parser.data.capacity() + parser.carry.capacity(), 0);
}

/// Streams made of the pieces that matter, and now and then of noise.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"data: ".to_vec()),
        Just(b"data:".to_vec()),
        Just(b"event: error".to_vec()),
        Just(b"id: 1".to_vec()),
        Just(b": comment".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\xEF\xBB\xBF".to_vec()),
        Just("\u{1f600}".as_bytes().to_vec()),
        Just(b"{\"choices\":[]}".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn cuts_do_not_change_the_events(
        bytes in stream(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        limit in prop_oneof![Just(EVENT_LIMIT), 4usize..64],
    ) {
        let mut at: Vec<usize> = cuts.iter().map(|i| i.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(parse(&parts, limit), parse(&[&bytes], limit));
    }
}

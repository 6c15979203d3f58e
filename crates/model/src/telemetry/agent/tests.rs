use super::*;
use crate::telemetry::Part;
use proptest::prelude::*;

fn device() -> Device {
    let (host, name) = ("node1".to_owned(), "eth0".to_owned());
    Device { host, part: Part::Nic, name, index: None, role: Some(Role::Decode) }
}

fn read_at(ms: u64, value: f64) -> Say {
    let values = BTreeMap::from([(Quantity::Sent, value), (Quantity::LinkSpeed, 1e9)]);
    Say::Read { id: 3, from: Nanos::from_millis(ms), to: Nanos::from_millis(ms + 1), values }
}

fn spool() -> Vec<Say> {
    let absent = Absent { host: "node1".into(), what: "GPUs".into(), why: "none".into() };
    vec![
        Say::Device { id: 3, device: device() },
        Say::Absent(absent),
        read_at(10, 1.0),
        Say::Begun { measure: 7 },
        read_at(20, 2.5),
        Say::Ended { measure: 7 },
        Say::Sealed { why: "it was told so".into() },
    ]
}

fn take(received: &mut Received, says: &[Say]) {
    for say in says {
        assert_eq!(received.take(line(say).trim_end().as_bytes()), None, "{say:?}");
    }
}

#[test]
fn every_message_is_read_back() {
    let watching = Watching {
        host: "node1".into(),
        marker: "A=b".into(),
        roles: BTreeMap::from([("a/0".to_owned(), Role::Prefill)]),
        started: BTreeMap::from([("a/0".to_owned(), 4711)]),
        ..Watching::default()
    };
    for ask in [
        Ask::Ping { n: 1 },
        Ask::From { byte: 9 },
        Ask::Watch(Box::new(watching)),
        Ask::Begin { measure: 2 },
        Ask::End { measure: 2 },
        Ask::Bye,
    ] {
        assert_eq!(read(line(&ask).as_bytes()), Some(ask));
    }
    let hello = Say::Hello { protocol: PROTOCOL, version: "1".into(), pid: Some(3) };
    let pong = Say::Pong { n: 1, got: Nanos(2), sent: Nanos(3) };
    let border = Border::Ended;
    let unspooled = Say::Unspooled { border, measure: 2, why: "no space left".into() };
    for say in spool().into_iter().chain([hello, pong, unspooled]) {
        assert_eq!(read(line(&say).as_bytes()), Some(say));
    }
}

#[test]
fn what_a_spool_says_becomes_readings() {
    let mut received = Received::default();
    take(&mut received, &spool());
    assert!(received.has_begun(7) && received.has_ended(7) && !received.has_ended(8));
    assert_eq!(received.sealed(), Some("it was told so"));
    let found = received.readings(Nanos::from_secs(1));
    let sent = found.of(&device(), Quantity::Sent).unwrap();
    assert_eq!(sent.readings.iter().map(|r| r.value).collect::<Vec<_>>(), [1.0, 2.5]);
    assert_eq!(found.absent.len(), 1);
    assert!(received.readings(Nanos::from_secs(1)).series.is_empty(), "told once");
}

#[test]
fn what_is_said_beside_the_spool_is_no_byte_of_it() {
    let mut received = Received::default();
    let why = "no space left".to_owned();
    let said = Say::Unspooled { border: Border::Begun, measure: 7, why };
    assert_eq!(received.take(line(&said).trim_end().as_bytes()), Some(said));
    assert_eq!(received, Received::default());
}

#[test]
fn who_asks_from_the_next_byte_sees_every_line_once() {
    let text: String = spool().iter().map(line).collect();
    let mut received = Received::default();
    take(&mut received, &spool()[..3]);
    let rest = &text.as_bytes()[usize::try_from(received.next_byte()).unwrap()..];
    for line in rest.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        received.take(line);
    }
    assert_eq!(received.next_byte(), text.len() as u64);
    let mut at_once = Received::default();
    take(&mut at_once, &spool());
    assert_eq!(received, at_once);
}

/// Where nothing can be read of all of it, that holds in every measurement; what else was absent is told with its own.
#[test]
fn a_machine_or_a_pod_of_which_nothing_is_read_stays_so() {
    let mut received = Received::default();
    let absent = |what: &str| {
        let (host, why) = ("p".to_owned(), "it was told so".to_owned());
        Say::Absent(Absent { host, what: what.to_owned(), why })
    };
    let first = [THE_MACHINE, THE_POD, "network"].map(absent);
    take(&mut received, &[&[Say::Begun { measure: 1 }], &first[..]].concat());
    take(&mut received, &[Say::Ended { measure: 1 }, Say::Begun { measure: 2 }]);
    let found = received.readings(Nanos::from_secs(1));
    let left: Vec<&str> = found.absent.iter().map(|a| a.what.as_str()).collect();
    assert_eq!(left, [THE_MACHINE, THE_POD]);
}

proptest! {
    #[test]
    fn no_line_makes_a_reader_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read::<Ask>(&line);
        Received::default().take(&line);
    }

    /// A line that was cut or changed anywhere is read, or skipped.
    #[test]
    fn no_damaged_line_makes_a_reader_panic(which in 0usize..7, at in 0usize..200, byte: u8) {
        let mut text = line(&spool()[which]).into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let mut received = Received::default();
        received.take(&text);
        received.take(&text[..at]);
        received.take(&"[".repeat(100_000).into_bytes());
    }
}

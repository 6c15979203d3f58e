//! What requests of a stream are made of.

use super::*;
use crate::driver::{Turn, Turns};
use crate::workload::dataset::ShareGptRules;

fn workload(name: &str, source: Source) -> Workload {
    Workload {
        name: name.to_owned(),
        api: Api::Chat,
        stream: true,
        temperature: None,
        system: None,
        force_len: true,
        body: serde_json::Map::new(),
        seed: 7,
        cache: CachePolicy::default(),
        source,
    }
}

fn synthetic_of(name: &str, isl: u32, prefix: u32) -> Workload {
    let lengths = Lengths { prefix, ..Lengths::fixed(isl, 16) };
    workload(name, Source::Synthetic { lengths, entries: None })
}

fn texts(w: &Workload, stream: u64, n: u64) -> Vec<String> {
    let (words, files) = (Words::common(1.0, Sizing::Guess), Files::default());
    let s = PromptStream::new(w, &words, &files, stream, 1);
    (0..n).map(|i| s.prompt(i).texts.remove(0)).collect()
}

#[test]
fn every_request_and_every_repeat_has_its_own_prompt() {
    let w = synthetic_of("w", 32, 0);
    let mut all = texts(&w, 1, 200);
    all.extend(texts(&w, 2, 200));
    assert!(all.iter().all(|t| t.split(' ').count() == 32));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 400);
    assert_eq!(texts(&w, 1, 5), texts(&w, 1, 5), "the same stream is the same to the byte");
}

#[test]
fn a_prefix_is_shared_by_all_trials_and_nothing_else_is() {
    let w = synthetic_of("w", 8, 16);
    let all = [texts(&w, 1, 3), texts(&w, 2, 3)].concat();
    let head = |t: &str| t.split(' ').take(16).collect::<Vec<_>>().join(" ");
    assert!(all.iter().all(|t| head(t) == head(&all[0]) && t.split(' ').count() == 24));
}

#[test]
fn a_mix_keeps_the_order_and_the_class_of_its_parts() {
    let part = |name, n| MixPart { share: Share::Count(n), workload: synthetic_of(name, 4, 0) };
    let mix = workload("m", Source::Mix { parts: vec![part("long", 2), part("short", 1)] });
    let (words, files) = (Words::common(1.0, Sizing::Guess), Files::default());
    let s = PromptStream::new(&mix, &words, &files, 1, 1);
    let classes: Vec<_> = (0..6).map(|i| s.prompt(i).class).collect();
    assert_eq!(classes, ["long", "long", "short", "long", "long", "short"]);
    assert_ne!(s.prompt(0).texts, s.prompt(3).texts, "the second round has other texts");
}

#[test]
fn a_batch_holds_the_prompts_that_single_requests_would_have() {
    let w = synthetic_of("w", 4, 0);
    let (words, files) = (Words::common(1.0, Sizing::Guess), Files::default());
    let batch = PromptStream::new(&w, &words, &files, 1, 3).prompt(1);
    assert_eq!(batch.texts, texts(&w, 1, 6)[3..]);
    assert_eq!(batch.asked_input_tokens, Some(12));
}

fn salted(w: &Workload, files: &Files, stream: u64, salt: Option<Salt>, n: u64) -> Vec<String> {
    let words = Words::common(1.0, Sizing::Guess);
    let s = PromptStream::new(w, &words, files, stream, 1).salted(salt);
    (0..n).map(|i| s.prompt(i).texts.remove(0)).collect()
}

/// Words that two texts have in common from the first on: what a prefix cache can answer.
fn common(a: &str, b: &str) -> usize {
    a.split(' ').zip(b.split(' ')).take_while(|(a, b)| a == b).count()
}

fn trace_of(lines: &str) -> (Workload, Files) {
    let rules = dataset::ShareGptRules { count: &dataset::sharegpt::guess_tokens, most: 0 };
    let format = FileFormat::Mooncake;
    let mut files = Files::default();
    files.insert("t", format, Dataset::parse(format, lines, &rules).unwrap());
    let source = Source::File { file: "t".into(), format, pick: Pick::InOrder, max_tokens: None };
    (workload("w", source), files)
}

#[test]
fn a_salt_parts_trials_and_leaves_what_one_trial_shares() {
    let w = synthetic_of("w", 32, 64);
    let (files, salts) = (Files::default(), [1, 2].map(|n| Some(Salt::of(&["run"], &[n]))));
    let [one, two] = salts.map(|salt| salted(&w, &files, 5, salt, 20));
    for (a, b) in one.iter().zip(&two) {
        assert!(common(a, b) < 8, "{a}\n{b}");
        assert_eq!((a.split(' ').count(), b.split(' ').count()), (96, 96));
    }
    for a in &one[1..] {
        // By chance the word behind the prefix may be the same; eight are not.
        assert!((64..72).contains(&common(&one[0], a)), "the prefix of the trial is shared: {a}");
    }
    // A warm-up, which is another stream of the same trial, fills the cache with that prefix.
    assert!(common(&one[0], &salted(&w, &files, 6, salts[0], 1)[0]) >= 64);
    assert_eq!(
        salted(&w, &files, 5, None, 3),
        texts(&w, 5, 3),
        "without a salt all is as the seed says"
    );
}

#[test]
fn given_texts_stand_behind_a_mark_of_their_stream_and_repeats_stay_repeats() {
    let text = |id: &str| PromptText { id: id.into(), max_tokens: 4, text: format!("say {id}") };
    let source = Source::Prompts { pick: Pick::InOrder, prompts: vec![text("a"), text("b")] };
    let w = workload("w", source);
    let (files, salt) = (Files::default(), Some(Salt::of(&["run"], &[1])));
    let (measured, warm) = (salted(&w, &files, 1, salt, 4), salted(&w, &files, 2, salt, 4));
    assert!(measured[0].ends_with("] say a") && measured[1].ends_with("] say b"));
    assert_eq!(measured[..2], measured[2..]);
    assert_ne!(measured[0], warm[0]);
    assert_eq!(salted(&w, &files, 1, None, 1), ["say a"]);
}

#[test]
fn a_salt_marks_system_messages_of_a_workload_and_of_its_parts() {
    let mut part = synthetic_of("p", 4, 0);
    part.system = Some("be brief".into());
    let parts = vec![MixPart { share: Share::Count(1), workload: part }];
    let mut mix = workload("m", Source::Mix { parts });
    mix.system = Some("be brief".into());
    let mix = mix.salted(Salt::of(&["run"], &[]));
    let Source::Mix { parts } = &mix.source else { panic!("a mix stays one") };
    let (own, of_part) = (mix.system.as_deref().unwrap(), parts[0].workload.system.as_deref());
    assert!(own.ends_with("] be brief") && own.starts_with('['));
    assert_eq!(Some(own), of_part);
}

#[test]
fn prefix_groups_are_shared_within_and_differ_from_one_another() {
    let groups = |pick| {
        let prefix_groups = Some(PrefixGroups { count: 3, pick });
        let lengths = Lengths { prefix: 40, prefix_groups, ..Lengths::fixed(16, 8) };
        texts(&workload("w", Source::Synthetic { lengths, entries: None }), 1, 300)
    };
    let head = |t: &String| t.split(' ').take(40).collect::<Vec<_>>().join(" ");
    let in_turn: Vec<String> = groups(Pick::InOrder).iter().map(head).collect();
    assert!((0..297).all(|i| in_turn[i] == in_turn[i + 3]));
    assert!((0..2).all(|i| common(&in_turn[i], &in_turn[i + 1]) < 8));
    let drawn: Vec<String> = groups(Pick::Random).iter().map(head).collect();
    for head in &in_turn[..3] {
        let n = drawn.iter().filter(|d| *d == head).count();
        assert!((70..130).contains(&n), "{n} of 300 in one of three groups");
    }
    assert!(drawn[..6] != in_turn[..6], "drawn, not in turn");
}

#[test]
fn equal_hash_ids_are_equal_blocks_and_lengths_are_those_of_the_trace() {
    let (w, files) = trace_of(
        r#"{"timestamp":0,"input_length":1200,"output_length":7,"hash_ids":[1,2,3]}
           {"timestamp":5,"input_length":1100,"output_length":8,"hash_ids":[1,2,4]}
           {"timestamp":9,"input_length":1150,"output_length":9,"hash_ids":[1,2,3]}
           {"timestamp":9,"input_length":600,"output_length":9}"#,
    );
    for salt in [None, Some(Salt::of(&["run"], &[1]))] {
        let all = salted(&w, &files, 1, salt, 8);
        let lengths: Vec<usize> = all.iter().map(|t| t.split(' ').count()).collect();
        assert_eq!(lengths[..4], [1200, 1100, 1150, 600]);
        assert!((1024..1032).contains(&common(&all[0], &all[1])));
        assert_eq!(common(&all[0], &all[2]), 1150, "a part of a block is its beginning");
        assert!(common(&all[0], &all[3]) < 8);
        assert_eq!(all[0], all[4], "from the top again: the same blocks");
        assert!(common(&all[3], &all[7]) < 8, "what has no id is new each time");
    }
    let due: Vec<u64> = files.due(&w).unwrap().iter().map(|n| n.0).collect();
    assert_eq!(due, [0, 5_000_000, 9_000_000, 9_000_000]);
    assert_eq!(files.due(&synthetic_of("w", 1, 0)), None);
    let words = Words::common(1.0, Sizing::Guess);
    let second = PromptStream::new(&w, &words, &files, 1, 1).prompt(1);
    assert_eq!((second.asked_input_tokens, second.max_tokens), (Some(1100), 8));
}

#[test]
fn a_weighted_mix_draws_each_part_as_often_as_its_weight_says() {
    let part = |name, w| MixPart { share: Share::Weight(w), workload: synthetic_of(name, 4, 0) };
    let parts = vec![part("often", 0.7), part("seldom", 0.3)];
    let mix = workload("m", Source::Mix { parts });
    let (words, files) = (Words::common(1.0, Sizing::Guess), Files::default());
    let classes = |stream| -> Vec<String> {
        let s = PromptStream::new(&mix, &words, &files, stream, 1);
        (0..2_000).map(|i| s.prompt(i).class).collect()
    };
    let drawn = classes(1);
    let often = drawn.iter().filter(|c| *c == "often").count();
    // Six standard deviations of a binomial: 6 * sqrt(2000 * 0.7 * 0.3) = 123.
    assert!((1_277..=1_523).contains(&often), "{often} of 2000");
    assert_eq!(drawn, classes(1));
    assert_ne!(drawn, classes(2), "each stream has draws of its own");
}

#[test]
fn of_conversations_the_workloads_limit_wins_and_of_lines_their_own() {
    let line = FileLine { text: "t".into(), max_tokens: Some(9) };
    let of = |format, max_tokens| {
        let mut files = Files::default();
        let data = Dataset::Texts { lines: vec![line.clone()], about: String::new() };
        files.insert("f", format, data);
        let source = Source::File { file: "f".into(), format, pick: Pick::InOrder, max_tokens };
        let (w, words) = (workload("w", source), Words::common(1.0, Sizing::Guess));
        PromptStream::new(&w, &words, &files, 1, 1).prompt(0).max_tokens
    };
    assert_eq!(of(FileFormat::Jsonl, Some(5)), 9);
    assert_eq!(of(FileFormat::Sharegpt, Some(5)), 5);
    assert_eq!(of(FileFormat::Sharegpt, None), 9);
}

#[test]
fn plans_of_earlier_versions_are_read_and_new_keys_are_left_out_where_nothing_is_asked() {
    let old = r#"{"name":"m","api":"chat","stream":true,"force_len":true,"seed":7,"source":{"kind":"mix","parts":[{"count":2,"workload":{"name":"w","api":"chat","stream":true,"force_len":true,"seed":7,"source":{"kind":"synthetic","lengths":{"isl":8,"isl_dev":0.0,"prefix":0,"osl":16,"osl_dev":0.0},"entries":null}}}]}}"#;
    let read: Workload = serde_json::from_str(old).unwrap();
    let parts = vec![MixPart { share: Share::Count(2), workload: synthetic_of("w", 8, 0) }];
    assert_eq!(read, workload("m", Source::Mix { parts }));
    assert_eq!(serde_json::to_string(&read).unwrap(), old);
}

fn talk(history: History, turns: Spread) -> Workload {
    let lengths = Lengths { prefix: 10, ..Lengths::fixed(30, 16) };
    let turn_isl = Spread { mean: 20, dist: Some(LengthDist::uniform(15, 25)) };
    workload(
        "talk",
        Source::Sessions { history, talk: Talk::Synthetic { lengths, turns, turn_isl } },
    )
}

#[test]
fn the_turns_of_a_session_follow_from_its_number_and_ask_for_all_that_was_said() {
    let fixed = Spread { mean: 4, dist: None };
    let w = talk(History::Real, fixed.clone());
    let (words, files) = (Words::common(1.0, Sizing::Guess), Files::default());
    let s = PromptStream::new(&w, &words, &files, 1, 1);
    assert_eq!(s.turns(), Some(Turns::Fixed(4)));
    let count = |text: &str| u32::try_from(text.split(' ').count()).unwrap();
    let mut seen = Vec::new();
    for session in 0..5 {
        let mut said = 0;
        for number in 0..4 {
            let turn = s.turn(Turn { session, number });
            assert_eq!(turn, s.turn(Turn { session, number }), "the same to the byte");
            assert_eq!(
                (turn.planned_answer, turn.system, turn.prompt.max_tokens),
                (None, None, 16)
            );
            let own = count(&turn.prompt.texts[0]);
            assert!(if number == 0 { own == 40 } else { (15..=25).contains(&own) });
            // By hand: what this turn says, and what was said and answered before it.
            assert_eq!(turn.prompt.asked_input_tokens, Some(said + own));
            said += own + 16;
            seen.push(turn.prompt.texts[0].clone());
        }
        assert_eq!(s.prompt(session), s.turn(Turn { session, number: 0 }).prompt);
    }
    let heads: Vec<String> = seen.iter().step_by(4).map(|t| t[..20].to_owned()).collect();
    assert!(heads.windows(2).all(|h| h[0] == h[1]), "first turns share a prefix: {heads:?}");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20);

    let w = talk(History::Planned, fixed);
    let s = PromptStream::new(&w, &words, &files, 1, 1);
    let answers: Vec<String> =
        (0..4).map(|number| s.turn(Turn { session: 2, number }).planned_answer.unwrap()).collect();
    assert!(answers.iter().all(|a| count(a) == 16) && answers[0] != answers[1], "{answers:?}");
}

#[test]
fn sessions_of_a_file_hold_its_conversations_behind_one_mark() {
    let text = "{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"},{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"}],\"max_tokens\":5}\nalone\n";
    let rules = ShareGptRules { count: &dataset::sharegpt::guess_tokens, most: usize::MAX };
    let found = Conversations::parse(FileFormat::Jsonl, text, &rules, 9).unwrap();
    let mut files = Files::default();
    files.insert_conversations("f", FileFormat::Jsonl, found);
    let of = |history, turns| {
        let talk = Talk::File {
            file: "f".into(),
            format: FileFormat::Jsonl,
            pick: Pick::InOrder,
            max_tokens: Some(7),
            turns,
        };
        workload("w", Source::Sessions { history, talk })
    };
    let words = Words::common(1.0, Sizing::Guess);
    let planned = of(History::Planned, 9);
    let s = PromptStream::new(&planned, &words, &files, 1, 1).salted(Some(Salt::of(&["r"], &[1])));
    let turns = s.turns().unwrap();
    assert_eq!([0, 1, 2].map(|n| turns.of(n)), [2, 1, 2]);
    let (first, second) =
        (s.turn(Turn { session: 2, number: 0 }), s.turn(Turn { session: 2, number: 1 }));
    assert!(first.prompt.texts[0].ends_with("] a"), "{first:?}");
    assert!(first.system.unwrap().ends_with("] be brief"));
    assert_eq!((first.planned_answer.as_deref(), first.prompt.max_tokens), (Some("b"), 5));
    assert_eq!(second.prompt.texts, ["c"]);
    assert_eq!(s.turn(Turn { session: 1, number: 0 }).prompt.max_tokens, 7);
    let real = of(History::Real, 1);
    let s = PromptStream::new(&real, &words, &files, 1, 1);
    assert_eq!(s.turns().unwrap().of(0), 1, "no more turns than are asked for");
    assert_eq!(s.turn(Turn { session: 0, number: 0 }).planned_answer, None);
    assert!(files.about(&real)[0].contains("2 conversations of 1.5 turns"));
}

//! `ShareGPT` conversations: the first question of each is the prompt, the first answer its length.
//!
//! The rules of which conversations count are those that `vllm bench serve` and `sglang.bench_serving`
//! have always used, so that numbers can be held against theirs.

use super::FileLine;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Shortest prompt and shortest answer that count, in tokens.
pub const SHORTEST: u32 = 4;
/// Longest prompt that counts, in tokens.
pub const LONGEST_PROMPT: u32 = 1_024;
/// Longest prompt and answer together that count, in tokens.
pub const LONGEST_BOTH: u32 = 2_048;

/// How conversations are chosen and measured.
#[derive(Clone, Copy)]
pub struct ShareGptRules<'a> {
    /// Tokens of a text.
    pub count: &'a dyn Fn(&str) -> u32,
    /// Stop looking after this many; counting tokens is what takes time.
    pub most: usize,
}

impl fmt::Debug for ShareGptRules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareGptRules").field("most", &self.most).finish_non_exhaustive()
    }
}

/// Tokens of a text where there is no tokenizer: four for every three words, rounded up.
pub fn guess_tokens(text: &str) -> u32 {
    let words = u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
    u32::try_from((u64::from(words) * 4).div_ceil(3)).unwrap_or(u32::MAX)
}

/// The conversations of a file that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareGpt {
    /// Prompt, and length of the answer, in the order of the file.
    pub lines: Vec<FileLine>,
    /// Conversations that were looked at.
    pub looked_at: usize,
    /// Of these: shorter than two turns, or not a person first and a model second.
    pub not_a_pair: usize,
    /// Of these: too short or too long.
    pub out_of_range: usize,
    prompt_tokens: u64,
}

impl ShareGpt {
    pub(super) fn about(&self) -> String {
        let n = self.lines.len().max(1) as f64;
        let answers: u64 = self.lines.iter().filter_map(|l| l.max_tokens.map(u64::from)).sum();
        format!(
            "{} of {} conversations, on average {:.0} prompt and {:.0} answer tokens ({} were no pair \
             of question and answer, {} too short or too long)",
            self.lines.len(),
            self.looked_at,
            self.prompt_tokens as f64 / n,
            answers as f64 / n,
            self.not_a_pair,
            self.out_of_range
        )
    }

    fn add(&mut self, conversation: &Conversation<'_>, rules: &ShareGptRules<'_>) {
        self.looked_at += 1;
        let (Some(question), Some(answer)) = (&conversation.0[0], &conversation.0[1]) else {
            self.not_a_pair += 1;
            return;
        };
        if !is_pair(question, answer) {
            self.not_a_pair += 1;
            return;
        }
        let prompt = (rules.count)(&question.value);
        // The prompt decides first: long answers take the time.
        if !(SHORTEST..=LONGEST_PROMPT).contains(&prompt) {
            self.out_of_range += 1;
            return;
        }
        let tokens = (rules.count)(&answer.value);
        if tokens < SHORTEST || tokens > LONGEST_BOTH - prompt {
            self.out_of_range += 1;
            return;
        }
        self.prompt_tokens += u64::from(prompt);
        let text = question.value.clone().into_owned();
        self.lines.push(FileLine { text, max_tokens: Some(tokens) });
    }
}

/// Reads a file of conversations. One at a time is in memory, and the pairs that count.
///
/// # Errors
/// Names the line and column that is not as the format says.
pub fn parse(text: &str, rules: &ShareGptRules<'_>) -> Result<ShareGpt, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader.deserialize_seq(Conversations { rules }).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    if found.lines.is_empty() {
        return Err(format!(
            "none of {} conversations counts: {} are no pair of question and answer, {} are shorter than \
             {SHORTEST} or longer than {LONGEST_PROMPT} (with the answer {LONGEST_BOTH}) tokens",
            found.looked_at, found.not_a_pair, found.out_of_range
        ));
    }
    Ok(found)
}

struct Conversations<'r, 'a> {
    rules: &'r ShareGptRules<'a>,
}

impl<'de> Visitor<'de> for Conversations<'_, '_> {
    type Value = ShareGpt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conversations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ShareGpt, A::Error> {
        let mut found = ShareGpt::default();
        while found.lines.len() < self.rules.most {
            let Some(entry) = seq.next_element::<Entry<'de>>()? else { return Ok(found) };
            found.add(&entry.conversations, self.rules);
        }
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// Reads the conversations that count, of each at most `most_turns` pairs of question and answer. What
/// counts is decided by the first pair, as of single prompts; a conversation is cut where people and model
/// no longer take turns. Says what was left out as well.
///
/// # Errors
/// Names the line and column that is not as the format says.
pub(super) fn parse_conversations(
    text: &str,
    rules: &ShareGptRules<'_>,
    most_turns: usize,
) -> Result<(Vec<super::Conversation>, String), String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader.deserialize_seq(Talks { rules, most_turns }).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    let left_out = found.looked_at - found.list.len();
    if found.list.is_empty() {
        return Err(format!("none of {} conversations counts", found.looked_at));
    }
    let said = format!(
        " ({left_out} of {} left out: their first question and answer were no pair, too short or too long)",
        found.looked_at
    );
    Ok((found.list, if left_out > 0 { said } else { String::new() }))
}

#[derive(Default)]
struct FoundTalks {
    list: Vec<super::Conversation>,
    looked_at: usize,
}

struct Talks<'r, 'a> {
    rules: &'r ShareGptRules<'a>,
    most_turns: usize,
}

impl<'de> Visitor<'de> for Talks<'_, '_> {
    type Value = FoundTalks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conversations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FoundTalks, A::Error> {
        let mut found = FoundTalks::default();
        while found.list.len() < self.rules.most {
            let Some(entry) = seq.next_element::<WholeEntry<'de>>()? else { return Ok(found) };
            found.looked_at += 1;
            let turns =
                turns(&entry.conversations.unwrap_or_default(), self.rules, self.most_turns);
            if !turns.is_empty() {
                found.list.push(super::Conversation { system: None, turns });
            }
        }
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[derive(Deserialize)]
struct WholeEntry<'a> {
    #[serde(borrow)]
    conversations: Option<Vec<Turn<'a>>>,
}

fn turns(said: &[Turn<'_>], rules: &ShareGptRules<'_>, most_turns: usize) -> Vec<super::FileTurn> {
    let mut turns = Vec::new();
    for pair in said.chunks_exact(2).take(most_turns) {
        let (question, answer) = (&pair[0], &pair[1]);
        if !is_pair(question, answer) || question.value.is_empty() || answer.value.is_empty() {
            break;
        }
        let tokens = (rules.count)(&answer.value);
        if turns.is_empty() {
            let prompt = (rules.count)(&question.value);
            let fits = (SHORTEST..=LONGEST_PROMPT).contains(&prompt)
                && (SHORTEST..=LONGEST_BOTH - prompt).contains(&tokens);
            if !fits {
                break;
            }
        }
        turns.push(super::FileTurn {
            text: question.value.clone().into_owned(),
            answer: Some(answer.value.clone().into_owned()),
            max_tokens: Some(tokens.max(1)),
        });
    }
    turns
}

fn is_pair(question: &Turn<'_>, answer: &Turn<'_>) -> bool {
    matches!(&*question.from, "human" | "user")
        && matches!(&*answer.from, "gpt" | "assistant" | "chatgpt")
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    conversations: Conversation<'a>,
}

#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// The first two turns; the others are passed over unread.
#[derive(Default)]
struct Conversation<'a>([Option<Turn<'a>>; 2]);

impl<'de: 'a, 'a> Deserialize<'de> for Conversation<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Turns;
        impl<'de> Visitor<'de> for Turns {
            type Value = Conversation<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of turns")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut conversation = Conversation::default();
                for place in &mut conversation.0 {
                    *place = seq.next_element()?;
                }
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(conversation)
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Conversation::default())
            }
        }
        d.deserialize_any(Turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, most: usize) -> Result<ShareGpt, String> {
        parse(text, &ShareGptRules { count: &guess_tokens, most })
    }

    fn conversation(turns: &[(&str, usize)]) -> String {
        let turn = |(from, words): &(&str, usize)| {
            format!("{{\"from\":\"{from}\",\"value\":\"{}\"}}", vec!["word"; *words].join(" "))
        };
        let turns: Vec<String> = turns.iter().map(turn).collect();
        format!("{{\"id\":\"x\",\"conversations\":[{}]}}", turns.join(","))
    }

    #[test]
    fn the_first_question_is_the_prompt_and_the_first_answer_its_length() {
        let text = format!(
            "[{},{}]",
            conversation(&[("human", 6), ("gpt", 30), ("human", 9), ("gpt", 90)]),
            conversation(&[("user", 3), ("assistant", 3)]),
        );
        let found = read(&text, usize::MAX).unwrap();
        let lengths: Vec<_> = found.lines.iter().map(|l| l.max_tokens).collect();
        assert_eq!(lengths, [Some(40), Some(4)]);
        assert_eq!(found.lines[0].text, "word word word word word word");
        assert!(
            found.about().starts_with("2 of 2 conversations, on average 6 prompt and 22 answer")
        );
    }

    #[test]
    fn what_is_no_pair_or_out_of_range_is_left_out_and_counted() {
        let all = [
            conversation(&[("human", 10)]),
            conversation(&[("gpt", 10), ("human", 10)]),
            conversation(&[("human", 2), ("gpt", 10)]),
            conversation(&[("human", 10), ("gpt", 2)]),
            conversation(&[("human", 769), ("gpt", 10)]),
            conversation(&[("human", 768), ("gpt", 769)]),
            "{\"conversations\":null}".to_owned(),
            conversation(&[("human", 768), ("gpt", 768)]),
        ];
        let found = read(&format!("[{}]", all.join(",")), usize::MAX).unwrap();
        assert_eq!((found.lines.len(), found.not_a_pair, found.out_of_range), (1, 3, 4));
    }

    #[test]
    fn a_conversation_goes_on_while_people_and_model_take_turns() {
        let all = [
            conversation(&[("human", 6), ("gpt", 30), ("human", 1), ("gpt", 3), ("human", 9)]),
            conversation(&[("human", 6), ("gpt", 30), ("gpt", 3), ("human", 9)]),
            conversation(&[("human", 2), ("gpt", 30), ("human", 9), ("gpt", 9)]),
            "{\"conversations\":null}".to_owned(),
        ];
        let rules = ShareGptRules { count: &guess_tokens, most: usize::MAX };
        let read = |most| parse_conversations(&format!("[{}]", all.join(",")), &rules, most);
        let (list, left_out) = read(9).unwrap();
        let limits: Vec<Vec<_>> =
            list.iter().map(|c| c.turns.iter().map(|t| t.max_tokens.unwrap()).collect()).collect();
        assert_eq!(limits, [vec![40, 4], vec![40]]);
        assert_eq!(list[0].turns[1].text, "word");
        assert!(left_out.starts_with(" (2 of 4 left out"), "{left_out}");
        assert_eq!(read(1).unwrap().0[0].turns.len(), 1);
    }

    #[test]
    fn no_more_is_counted_than_is_wanted() {
        let one = conversation(&[("human", 6), ("gpt", 30)]);
        let found = read(&format!("[{one},{one},{one}]"), 2).unwrap();
        assert_eq!((found.lines.len(), found.looked_at), (2, 2));
        // What follows is not looked at, but it must be JSON.
        assert!(read(&format!("[{one},{one},{{]"), 1).is_err());
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_column() {
        let said = |text| read(text, usize::MAX).unwrap_err();
        assert!(said("[\n{\"id\": 1}\n]").contains("missing field `conversations` at line 2"));
        assert!(said("{}").contains("expected a list of conversations at line 1"));
        assert!(said("[]").starts_with("none of 0 conversations counts"));
        assert!(said("[{\"conversations\": [{\"from\": 1}]}]").contains("line 1 column"));
    }
}

//! Files of conversations: what a user says turn after turn, and what was answered.

use super::sharegpt::{self, ShareGptRules};
use super::{FileFormat, parse_prompt_line};
use serde_json::Value;
use std::collections::HashMap;

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTurn {
    /// What the user says.
    pub text: String,
    /// The answer of the file, where it has one.
    pub answer: Option<String>,
    /// The turn's own limit.
    pub max_tokens: Option<u32>,
}

/// A conversation, from its first turn on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Its own system message.
    pub system: Option<String>,
    /// At least one.
    pub turns: Vec<FileTurn>,
}

/// What a file of conversations holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversations {
    /// In the order of the file.
    pub list: Vec<Conversation>,
    /// What was left out and why; empty where nothing was.
    left_out: String,
}

impl Conversations {
    /// Reads a file of `format`, of which no conversation is taken beyond `most_turns`.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn parse(
        format: FileFormat,
        text: &str,
        rules: &ShareGptRules<'_>,
        most_turns: usize,
    ) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match format {
            FileFormat::Jsonl => {
                Ok(Self { list: parse_lines(text, rules, most_turns)?, left_out: String::new() })
            }
            FileFormat::Sharegpt => {
                let (list, left_out) = sharegpt::parse_conversations(text, rules, most_turns)?;
                Ok(Self { list, left_out })
            }
            FileFormat::Mooncake | FileFormat::Burstgpt | FileFormat::Azure => {
                Err("a trace holds no conversations".to_owned())
            }
        }
    }

    /// One sentence on what is in it, and what was left out.
    pub fn about(&self) -> String {
        let turns: usize = self.list.iter().map(|c| c.turns.len()).sum();
        let mean = turns as f64 / self.list.len().max(1) as f64;
        format!("{} conversations of {mean:.1} turns on average{}", self.list.len(), self.left_out)
    }
}

/// Each line a conversation: an object with `messages`, or with a `session_id` that it shares with the
/// conversation's other turns, or a prompt that stands alone.
fn parse_lines(
    text: &str,
    rules: &ShareGptRules<'_>,
    most_turns: usize,
) -> Result<Vec<Conversation>, String> {
    let mut list: Vec<Conversation> = Vec::new();
    let mut by_id: HashMap<String, usize> = HashMap::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let at_line = |why: String| format!("line {}: {why}", i + 1);
        let object: Option<Value> =
            line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten();
        if let Some(messages) = object.as_ref().and_then(|o| o.get("messages")) {
            let limit = object.as_ref().and_then(|o| u32_of(o.get("max_tokens")?));
            list.push(from_messages(messages, limit, rules, most_turns).map_err(at_line)?);
            continue;
        }
        let said = parse_prompt_line(line).map_err(at_line)?;
        let turn = FileTurn { text: said.text, answer: None, max_tokens: said.max_tokens };
        let id = object.as_ref().and_then(|o| id_of(o.get("session_id")?));
        let place = match id {
            Some(id) => *by_id.entry(id).or_insert(list.len()),
            None => list.len(),
        };
        if place == list.len() {
            list.push(Conversation::default());
        }
        if list[place].turns.len() < most_turns {
            list[place].turns.push(turn);
        }
    }
    if list.is_empty() { Err("it holds no conversation".to_owned()) } else { Ok(list) }
}

fn u32_of(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// An id may be a text or a number.
fn id_of(value: &Value) -> Option<String> {
    (value.is_string() || value.is_number()).then(|| value.to_string())
}

/// A system message or none, then user and assistant in turns. The answer's length is the limit of a turn
/// where the line gives none.
fn from_messages(
    messages: &Value,
    limit: Option<u32>,
    rules: &ShareGptRules<'_>,
    most_turns: usize,
) -> Result<Conversation, String> {
    let messages = messages.as_array().ok_or("\"messages\" is no list")?;
    let mut conversation = Conversation::default();
    let mut is_users_turn = true;
    for (i, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let text = message.get("content").and_then(Value::as_str);
        let text = text.ok_or_else(|| format!("message {} has no text as \"content\"", i + 1))?;
        match (role, conversation.turns.last_mut()) {
            ("system" | "developer", None) if i == 0 => {
                conversation.system = Some(text.to_owned());
            }
            ("user", _) if is_users_turn => {
                if conversation.turns.len() == most_turns {
                    break;
                }
                let text = text.to_owned();
                conversation.turns.push(FileTurn { text, answer: None, max_tokens: limit });
                is_users_turn = false;
            }
            ("assistant", Some(turn)) if !is_users_turn => {
                turn.max_tokens = limit.or_else(|| Some((rules.count)(text).max(1)));
                turn.answer = Some(text.to_owned());
                is_users_turn = true;
            }
            _ => {
                return Err(format!(
                    "message {} is of role \"{role}\"; after a system message, user and assistant take turns",
                    i + 1
                ));
            }
        }
    }
    if conversation.turns.is_empty() {
        return Err("a conversation without a user's message".to_owned());
    }
    Ok(conversation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::dataset::sharegpt::guess_tokens;

    const RULES: ShareGptRules<'_> = ShareGptRules { count: &guess_tokens, most: usize::MAX };

    fn lines(text: &str, most_turns: usize) -> Result<Conversations, String> {
        Conversations::parse(FileFormat::Jsonl, text, &RULES, most_turns)
    }

    fn turn(text: &str, answer: Option<&str>, max_tokens: Option<u32>) -> FileTurn {
        FileTurn { text: text.to_owned(), answer: answer.map(str::to_owned), max_tokens }
    }

    #[test]
    fn a_line_of_messages_is_a_conversation() {
        let text = r#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"a"},{"role":"assistant","content":"b c d"},{"role":"user","content":"e"}]}
{"messages":[{"role":"user","content":"f"},{"role":"assistant","content":"g"}],"max_tokens":9}"#;
        let found = lines(text, 10).unwrap();
        assert_eq!(found.about(), "2 conversations of 1.5 turns on average");
        let [first, second] = found.list.as_slice() else { panic!("{found:?}") };
        assert_eq!(first.system.as_deref(), Some("be brief"));
        // Three words are four tokens.
        assert_eq!(first.turns, [turn("a", Some("b c d"), Some(4)), turn("e", None, None)]);
        assert_eq!(second.turns, [turn("f", Some("g"), Some(9))]);
        assert_eq!(lines(text, 1).unwrap().list[0].turns.len(), 1);
    }

    #[test]
    fn lines_of_one_session_are_its_turns_in_order() {
        let text = r#"{"session_id":"x","prompt":"a","max_tokens":3}
{"session_id":7,"prompt":"b"}
alone
{"session_id":"x","prompt":"c"}"#;
        let found = lines(text, 10).unwrap();
        let texts: Vec<Vec<&str>> =
            found.list.iter().map(|c| c.turns.iter().map(|t| t.text.as_str()).collect()).collect();
        assert_eq!(texts, [vec!["a", "c"], vec!["b"], vec!["alone"]]);
        assert_eq!(found.list[0].turns[0].max_tokens, Some(3));
    }

    #[test]
    fn what_is_wrong_is_named_by_line() {
        let said = |text: &str| lines(text, 10).unwrap_err();
        assert_eq!(said(""), "it holds no conversation");
        assert_eq!(said("{\"messages\":3}"), "line 1: \"messages\" is no list");
        assert_eq!(
            said("ok\n{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}"),
            "line 2: message 1 is of role \"assistant\"; after a system message, user and assistant take turns"
        );
        assert_eq!(
            said("{\"messages\":[{\"role\":\"user\",\"content\":[1]}]}"),
            "line 1: message 1 has no text as \"content\""
        );
        assert!(said("{\"messages\":[]}").contains("without a user's message"));
        assert!(said("{oops").starts_with("line 1: not JSON"));
        let trace = Conversations::parse(FileFormat::Azure, "", &RULES, 1);
        assert!(trace.unwrap_err().contains("no conversations"));
    }
}

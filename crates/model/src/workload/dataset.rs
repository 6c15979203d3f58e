//! Files of prompts: texts, conversations, and traces of what others were asked.
//!
//! Readers are pure functions from a file's text; they name the line that is wrong and take time linear
//! in the text.

use super::{Source, Talk, Workload};
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub mod conversations;
pub mod sharegpt;
pub mod trace;

pub use conversations::{Conversation, Conversations, FileTurn};
pub use sharegpt::ShareGptRules;
pub use trace::{Trace, TraceEntry};

/// How a prompt file is written.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// A prompt a line: text, a JSON string, or an object with `prompt`.
    #[default]
    Jsonl,
    /// `ShareGPT` conversations: a JSON array of `{id, conversations: [{from, value}]}`.
    Sharegpt,
    /// Mooncake: a JSON object a line with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`.
    Mooncake,
    /// `BurstGPT`: CSV with `Timestamp` (s), `Request tokens` and `Response tokens`.
    Burstgpt,
    /// Azure LLM inference: CSV with `TIMESTAMP`, `ContextTokens` and `GeneratedTokens`.
    Azure,
}

impl FileFormat {
    /// All formats.
    pub const ALL: [Self; 5] =
        [Self::Jsonl, Self::Sharegpt, Self::Mooncake, Self::Burstgpt, Self::Azure];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Sharegpt => "sharegpt",
            Self::Mooncake => "mooncake",
            Self::Burstgpt => "burstgpt",
            Self::Azure => "azure",
        }
    }

    /// Whether it holds instants and lengths in place of texts.
    pub const fn is_trace(self) -> bool {
        matches!(self, Self::Mooncake | Self::Burstgpt | Self::Azure)
    }

    /// Whether it is the default, which plans leave out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A text of a prompt file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// The prompt.
    pub text: String,
    /// The line's own limit.
    pub max_tokens: Option<u32>,
}

/// What a prompt file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Dataset {
    /// Texts.
    Texts {
        /// In the order of the file.
        lines: Vec<FileLine>,
        /// What was left out and why; empty where nothing was.
        about: String,
    },
    /// Instants and lengths.
    Trace(Trace),
}

impl Dataset {
    /// Reads a file of `format`. `rules` are for conversations.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn parse(
        format: FileFormat,
        text: &str,
        rules: &ShareGptRules<'_>,
    ) -> Result<Self, String> {
        // Spreadsheets put a byte-order mark in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ok(match format {
            FileFormat::Jsonl => {
                Self::Texts { lines: parse_prompt_file(text)?, about: String::new() }
            }
            FileFormat::Sharegpt => {
                let found = sharegpt::parse(text, rules)?;
                Self::Texts { about: found.about(), lines: found.lines }
            }
            FileFormat::Mooncake => Self::Trace(trace::parse_mooncake(text)?),
            FileFormat::Burstgpt => Self::Trace(trace::parse_burstgpt(text)?),
            FileFormat::Azure => Self::Trace(trace::parse_azure(text)?),
        })
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts { lines, .. } => lines.len(),
            Self::Trace(trace) => trace.entries().len(),
        }
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One sentence on what is in it, and what was left out.
    pub fn about(&self) -> String {
        match self {
            Self::Texts { lines, about } if about.is_empty() => format!("{} prompts", lines.len()),
            Self::Texts { about, .. } => about.clone(),
            Self::Trace(trace) => trace.about(),
        }
    }
}

/// The prompt files of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Files {
    prompts: BTreeMap<(String, FileFormat), Dataset>,
    conversations: BTreeMap<(String, FileFormat), Conversations>,
}

impl Files {
    /// Adds a file under its name in the plan.
    pub fn insert(&mut self, file: &str, format: FileFormat, dataset: Dataset) {
        self.prompts.insert((file.to_owned(), format), dataset);
    }

    /// Adds a file of conversations under its name in the plan.
    pub fn insert_conversations(&mut self, file: &str, format: FileFormat, found: Conversations) {
        self.conversations.insert((file.to_owned(), format), found);
    }

    /// The conversations of the file called `file`, read as `format`.
    pub fn conversations(&self, file: &str, format: FileFormat) -> Option<&[Conversation]> {
        find(&self.conversations, file, format).map(|found| found.list.as_slice())
    }

    /// The file called `file`, read as `format`.
    pub fn get(&self, file: &str, format: FileFormat) -> Option<&Dataset> {
        find(&self.prompts, file, format)
    }

    /// When each request of `workload` is due after the first one, where its file is a trace. Request
    /// `index` of a stream asks for what entry `index` of the trace asked for.
    pub fn due(&self, workload: &Workload) -> Option<Arc<[Nanos]>> {
        let Source::File { file, format, .. } = &workload.source else { return None };
        match self.get(file, *format)? {
            Dataset::Trace(trace) => Some(trace.due()),
            Dataset::Texts { .. } => None,
        }
    }

    /// What the files of `workload` hold, one sentence each.
    pub fn about(&self, workload: &Workload) -> Vec<String> {
        match &workload.source {
            Source::File { file, format, .. } => {
                let said = self.get(file, *format).map(Dataset::about);
                said.into_iter()
                    .map(|about| format!("{file} ({}): {about}", format.name()))
                    .collect()
            }
            Source::Sessions { talk: Talk::File { file, format, .. }, .. } => {
                let said = find(&self.conversations, file, *format).map(Conversations::about);
                said.into_iter()
                    .map(|about| format!("{file} ({}): {about}", format.name()))
                    .collect()
            }
            Source::Mix { parts } => parts.iter().flat_map(|p| self.about(&p.workload)).collect(),
            Source::Prompts { .. }
            | Source::Synthetic { .. }
            | Source::Sessions { talk: Talk::Synthetic { .. }, .. } => Vec::new(),
        }
    }
}

fn find<'a, T>(
    files: &'a BTreeMap<(String, FileFormat), T>,
    file: &str,
    format: FileFormat,
) -> Option<&'a T> {
    // A key of two parts cannot be looked up by a borrowed one; there are a handful of files.
    files.iter().find(|((name, f), _)| name == file && *f == format).map(|(_, data)| data)
}

/// Reads a prompt file: each line a JSON string, a JSON object with `prompt` (or `text`) and an
/// optional `max_tokens` (or `output_tokens`), or plain text. Empty lines are skipped.
///
/// # Errors
/// Names the line that begins like JSON and is none, or has no prompt.
pub fn parse_prompt_file(text: &str) -> Result<Vec<FileLine>, String> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        lines.push(parse_prompt_line(line).map_err(|why| format!("line {}: {why}", i + 1))?);
    }
    if lines.is_empty() { Err("it holds no prompt".to_owned()) } else { Ok(lines) }
}

fn parse_prompt_line(line: &str) -> Result<FileLine, String> {
    if !line.starts_with(['{', '"']) {
        return Ok(FileLine { text: line.to_owned(), max_tokens: None });
    }
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))?;
    if let Some(text) = value.as_str() {
        return Ok(FileLine { text: text.to_owned(), max_tokens: None });
    }
    let text = ["prompt", "text"].into_iter().find_map(|k| value.get(k)?.as_str());
    let text = text.ok_or("an object without a \"prompt\" string")?;
    let limit = ["max_tokens", "output_tokens"].into_iter().find_map(|k| value.get(k)?.as_u64());
    Ok(FileLine { text: text.to_owned(), max_tokens: limit.and_then(|n| u32::try_from(n).ok()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_file_may_hold_text_strings_or_objects() {
        let text = "plain words\n\n\"a string\"\n{\"prompt\":\"p\",\"max_tokens\":9}\n";
        let lines = parse_prompt_file(text).unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!((lines[2].text.as_str(), lines[2].max_tokens), ("p", Some(9)));
        assert_eq!(
            parse_prompt_file("ok\n{\"x\":1}").unwrap_err(),
            "line 2: an object without a \"prompt\" string"
        );
        assert!(parse_prompt_file("{oops").unwrap_err().starts_with("line 1: not JSON"));
        assert!(parse_prompt_file("\n\n").is_err());
    }

    /// The committed seeds of the fuzzer hold on a machine without a nightly toolchain too.
    #[test]
    fn fuzz_seeds_of_traces_are_read_or_refused_by_line() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/traces");
        let mut seen = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let (&format, text) = bytes.split_first().unwrap();
            let format = FileFormat::ALL[usize::from(format) % FileFormat::ALL.len()];
            let text = String::from_utf8_lossy(text);
            let rules = ShareGptRules { count: &sharegpt::guess_tokens, most: usize::MAX };
            match Dataset::parse(format, &text, &rules) {
                Ok(data) => assert!(!data.is_empty() && !data.about().is_empty()),
                Err(why) => assert!(!why.is_empty()),
            }
            seen += 1;
        }
        assert!(seen >= FileFormat::ALL.len(), "{seen} seeds");
    }
}

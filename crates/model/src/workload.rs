//! What is asked of the deployment: prompts and lengths, drawn from a seed.
//!
//! Request `index` of a stream is a pure function of the plan, the stream's seed and the index, so any
//! shard on any host makes the same request, and a run can be repeated to the byte.

pub use crate::api::Api;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Normal};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// How prompts are taken from a list or a file.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// In order, from the top again after the last.
    #[default]
    InOrder,
    /// Drawn with replacement, seeded.
    Random,
}

/// A prompt with its own length limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptText {
    /// Name in reports.
    pub id: String,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// The prompt.
    pub text: String,
}

/// Lengths of a synthetic workload, in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Lengths {
    /// Mean unique prompt length.
    pub isl: u32,
    /// Standard deviation of the prompt length.
    pub isl_dev: f64,
    /// Shared tokens before the unique ones.
    pub prefix: u32,
    /// Mean answer length.
    pub osl: u32,
    /// Standard deviation of the answer length.
    pub osl_dev: f64,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// Texts in the experiment file.
    Prompts {
        /// How they are taken.
        pick: Pick,
        /// The texts.
        prompts: Vec<PromptText>,
    },
    /// A JSONL or text file, one prompt a line.
    File {
        /// Its path, as the experiment file gives it.
        file: String,
        /// How lines are taken.
        pick: Pick,
        /// Longest answer where a line does not say.
        max_tokens: u32,
    },
    /// Random words of a given length.
    Synthetic {
        /// Lengths in tokens.
        lengths: Lengths,
        /// Distinct prompts; `None` = every request has its own.
        entries: Option<u32>,
    },
    /// Other workloads in turn.
    Mix {
        /// In this order, `count` of each per round.
        parts: Vec<MixPart>,
    },
}

/// One part of a mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MixPart {
    /// Requests of this part per round.
    pub count: u32,
    /// What they are.
    pub workload: Workload,
}

/// A workload, as planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Workload {
    /// Its name in the file.
    pub name: String,
    /// Endpoint family.
    pub api: Api,
    /// Stream the answer. Without it there is no time to first token.
    pub stream: bool,
    /// Sampling temperature; absent = the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// System message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Force the output length (`min_tokens = max_tokens`, `ignore_eos`).
    pub force_len: bool,
    /// Extra fields of the request body, verbatim.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Seed of every draw.
    pub seed: u64,
    /// Where prompts come from.
    pub source: Source,
}

impl Workload {
    /// Whether any prompt of it has to be written to a length in tokens.
    pub fn is_synthetic(&self) -> bool {
        match &self.source {
            Source::Synthetic { .. } => true,
            Source::Mix { parts } => parts.iter().any(|p| p.workload.is_synthetic()),
            Source::Prompts { .. } | Source::File { .. } => false,
        }
    }
}

/// How the length of a synthetic prompt was arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sizing {
    /// Words that are one token each by the model's tokenizer.
    Tokenizer,
    /// Words whose mean size was learnt from the server's `usage`.
    ServerUsage,
    /// A rule of thumb, because the server reports no `usage` either.
    Guess,
}

/// Words to write synthetic prompts with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Words {
    /// The words, without spaces.
    pub words: Vec<String>,
    /// Tokens per word.
    pub tokens_per_word: f64,
    /// Where that number comes from.
    pub sizing: Sizing,
}

impl Words {
    /// Short common English words, at `tokens_per_word`.
    pub fn common(tokens_per_word: f64, sizing: Sizing) -> Self {
        let words = COMMON_WORDS.split_ascii_whitespace().map(str::to_owned).collect();
        Self { words, tokens_per_word, sizing }
    }

    /// A text of `tokens` tokens.
    pub fn write(&self, tokens: u32, rng: &mut impl rand::Rng) -> String {
        if self.words.is_empty() {
            return String::new();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a length in words; `as` saturates and is never negative"
        )]
        let count = (f64::from(tokens) / self.tokens_per_word).round().max(1.0) as usize;
        let mut text = String::with_capacity(count * 7);
        for i in 0..count {
            if i > 0 {
                text.push(' ');
            }
            text.push_str(&self.words[rng.random_range(0..self.words.len())]);
        }
        text
    }
}

const COMMON_WORDS: &str = "time way year work day man world life hand part child eye woman place \
    week case point company number group problem fact be have do say get make go know take see come \
    think look want give use find tell ask seem feel try leave call good new first last long great \
    little own other old right big high small large next early young public bad same able to of in \
    for on with at by from up about into over after house water room mother area money story month \
    lot book job word business issue side kind head service friend father power hour game line end \
    member law car city name team minute idea body back parent face level office door health person \
    art war history party result change morning reason research girl guy moment air teacher force";

/// A request's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Workload or prompt id, for per-class numbers.
    pub class: String,
    /// The prompt, or several in batch mode.
    pub texts: Vec<String>,
    /// Prompt tokens asked for, all texts together, where the workload has a length.
    pub asked_input_tokens: Option<u32>,
    /// Longest answer per text.
    pub max_tokens: u32,
}

/// A line of a prompt file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// The prompt.
    pub text: String,
    /// The line's own limit.
    pub max_tokens: Option<u32>,
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

/// Makes the requests of one stream (a phase of a trial).
#[derive(Debug)]
pub struct PromptStream<'a> {
    workload: &'a Workload,
    words: &'a Words,
    /// Lines by file name.
    files: &'a std::collections::BTreeMap<String, Vec<FileLine>>,
    seed: u64,
    batch: u32,
}

impl<'a> PromptStream<'a> {
    /// A stream of `workload`, whose draws are told apart from other streams' by `stream_seed`.
    pub fn new(
        workload: &'a Workload,
        words: &'a Words,
        files: &'a std::collections::BTreeMap<String, Vec<FileLine>>,
        stream_seed: u64,
        batch: u32,
    ) -> Self {
        Self { workload, words, files, seed: stream_seed, batch: batch.max(1) }
    }

    /// The content of request `index`.
    pub fn prompt(&self, index: u64) -> Prompt {
        let first = index * u64::from(self.batch);
        let mut prompt = draw(self.workload, self.words, self.files, self.seed, first);
        for i in 1..u64::from(self.batch) {
            let more = draw(self.workload, self.words, self.files, self.seed, first + i);
            prompt.texts.extend(more.texts);
            prompt.asked_input_tokens =
                prompt.asked_input_tokens.zip(more.asked_input_tokens).map(|(a, b)| a + b);
        }
        prompt
    }
}

fn draw(
    workload: &Workload,
    words: &Words,
    files: &std::collections::BTreeMap<String, Vec<FileLine>>,
    stream: u64,
    index: u64,
) -> Prompt {
    let seed = derive_seed(&[workload.seed, stream, index]);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    match &workload.source {
        Source::Prompts { pick, prompts } => {
            let chosen = &prompts[choose(*pick, prompts.len(), index, &mut rng)];
            Prompt {
                class: chosen.id.clone(),
                texts: vec![chosen.text.clone()],
                asked_input_tokens: None,
                max_tokens: chosen.max_tokens,
            }
        }
        Source::File { file, pick, max_tokens } => {
            let lines = files.get(file).map_or(&[] as &[FileLine], Vec::as_slice);
            let line = lines.get(choose(*pick, lines.len(), index, &mut rng));
            Prompt {
                class: workload.name.clone(),
                texts: vec![line.map(|l| l.text.clone()).unwrap_or_default()],
                asked_input_tokens: None,
                max_tokens: line.and_then(|l| l.max_tokens).unwrap_or(*max_tokens),
            }
        }
        Source::Synthetic { lengths, entries } => {
            let entry = entries.map_or(index, |n| index % u64::from(n.max(1)));
            synthetic(workload, words, lengths, stream, entry)
        }
        Source::Mix { parts } => {
            let round: u64 = parts.iter().map(|p| u64::from(p.count)).sum();
            let mut place = index % round.max(1);
            for part in parts {
                let count = u64::from(part.count);
                if place < count {
                    let nth = index / round * count + place;
                    let mut prompt = draw(&part.workload, words, files, stream, nth);
                    prompt.class.clone_from(&part.workload.name);
                    return prompt;
                }
                place -= count;
            }
            unreachable!("`place` is below the sum of the counts")
        }
    }
}

fn choose(pick: Pick, len: usize, index: u64, rng: &mut impl rand::Rng) -> usize {
    match pick {
        _ if len == 0 => 0,
        Pick::InOrder => usize::try_from(index % len as u64).unwrap_or(0),
        Pick::Random => rng.random_range(0..len),
    }
}

fn synthetic(
    workload: &Workload,
    words: &Words,
    lengths: &Lengths,
    stream: u64,
    entry: u64,
) -> Prompt {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(derive_seed(&[workload.seed, stream, entry]));
    let isl = length(lengths.isl, lengths.isl_dev, &mut rng);
    let osl = length(lengths.osl, lengths.osl_dev, &mut rng);
    let unique = words.write(isl, &mut rng);
    let text = if lengths.prefix == 0 {
        unique
    } else {
        // From the workload's seed alone: the same prefix in every trial, as a system prompt is.
        let mut shared = Xoshiro256PlusPlus::seed_from_u64(derive_seed(&[workload.seed]));
        format!("{} {unique}", words.write(lengths.prefix, &mut shared))
    };
    Prompt {
        class: workload.name.clone(),
        texts: vec![text],
        asked_input_tokens: Some(lengths.prefix + isl),
        max_tokens: osl,
    }
}

/// Normal around `mean`, at least one token and at most twice the mean, so that one draw cannot
/// exceed a server's limit by surprise.
fn length(mean: u32, dev: f64, rng: &mut impl rand::Rng) -> u32 {
    let Some(normal) = (dev > 0.0).then(|| Normal::new(f64::from(mean), dev).ok()).flatten() else {
        return mean.max(1);
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a positive u32 range first"
    )]
    let drawn = normal.sample(rng).round().clamp(1.0, f64::from(mean.saturating_mul(2))) as u32;
    drawn
}

/// Mixes the parts of a seed into one (`SplitMix64` over the parts in order).
pub fn derive_seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9E37_79B9_7F4A_7C15, |state, &part| {
        let mut z = (state ^ part).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
            source,
        }
    }

    fn synthetic_of(name: &str, isl: u32, prefix: u32) -> Workload {
        let lengths = Lengths { isl, isl_dev: 0.0, prefix, osl: 16, osl_dev: 0.0 };
        workload(name, Source::Synthetic { lengths, entries: None })
    }

    fn texts(w: &Workload, stream: u64, n: u64) -> Vec<String> {
        let (words, files) = (Words::common(1.0, Sizing::Guess), BTreeMap::new());
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
        let part = |name, count| MixPart { count, workload: synthetic_of(name, 4, 0) };
        let mix = workload("m", Source::Mix { parts: vec![part("long", 2), part("short", 1)] });
        let (words, files) = (Words::common(1.0, Sizing::Guess), BTreeMap::new());
        let s = PromptStream::new(&mix, &words, &files, 1, 1);
        let classes: Vec<_> = (0..6).map(|i| s.prompt(i).class).collect();
        assert_eq!(classes, ["long", "long", "short", "long", "long", "short"]);
        assert_ne!(s.prompt(0).texts, s.prompt(3).texts, "the second round has other texts");
    }

    #[test]
    fn a_batch_holds_the_prompts_that_single_requests_would_have() {
        let w = synthetic_of("w", 4, 0);
        let (words, files) = (Words::common(1.0, Sizing::Guess), BTreeMap::new());
        let batch = PromptStream::new(&w, &words, &files, 1, 3).prompt(1);
        assert_eq!(batch.texts, texts(&w, 1, 6)[3..]);
        assert_eq!(batch.asked_input_tokens, Some(12));
    }

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

    proptest! {
        #[test]
        fn drawn_lengths_stay_in_range(mean in 1u32..10_000, dev in 0.0f64..5_000.0, seed: u64) {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let n = length(mean, dev, &mut rng);
            prop_assert!(n >= 1 && n <= mean.saturating_mul(2));
        }
    }
}

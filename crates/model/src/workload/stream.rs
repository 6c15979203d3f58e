//! Requests of a stream: request `index` is a pure function of the workload, the files, the stream's seed,
//! the salt and the index.

use super::dataset::Conversation;
use super::dataset::trace::{BLOCK_TOKENS, TraceEntry};
use super::sessions::{History, Spread, Talk, TurnContent};
use super::{
    Dataset, FileFormat, FileLine, Files, Lengths, MixPart, Pick, Prompt, Salt, Share, Source,
    Words, Workload, derive_seed,
};
use crate::driver::{Turn, Turns, conversation_of};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What a draw is for, beside the text: each has numbers of its own, so that adding one changes no other.
mod purpose {
    pub(super) const PREFIX_GROUP: u64 = 0x5eed_0001;
    pub(super) const PREFIX_TEXT: u64 = 0x5eed_0002;
    pub(super) const MIX_PART: u64 = 0x5eed_0003;
    pub(super) const BLOCK: u64 = 0x5eed_0004;
    pub(super) const TAIL: u64 = 0x5eed_0005;
    pub(super) const TURNS: u64 = 0x5eed_0006;
    pub(super) const TURN: u64 = 0x5eed_0007;
    pub(super) const ANSWER: u64 = 0x5eed_0008;
}

/// Makes the requests of one stream (a phase of a trial).
#[derive(Debug)]
pub struct PromptStream<'a> {
    workload: &'a Workload,
    maker: Maker<'a>,
    batch: u32,
}

/// What texts are made from.
#[derive(Debug, Clone, Copy)]
struct Maker<'a> {
    words: &'a Words,
    files: &'a Files,
    stream: u64,
    salt: Option<Salt>,
}

impl<'a> PromptStream<'a> {
    /// A stream of `workload`, whose draws are told apart from other streams' by `stream_seed`.
    pub fn new(
        workload: &'a Workload,
        words: &'a Words,
        files: &'a Files,
        stream_seed: u64,
        batch: u32,
    ) -> Self {
        let maker = Maker { words, files, stream: stream_seed, salt: None };
        Self { workload, maker, batch: batch.max(1) }
    }

    /// The same stream with each prompt behind the mark of `salt`. A shared prefix bears that of the
    /// trial, since a warm-up is there to fill the cache with it; everything else that of the stream.
    #[must_use]
    pub fn salted(mut self, salt: Option<Salt>) -> Self {
        self.maker.salt = salt;
        self
    }

    /// How many turns the sessions of the stream have; absent where requests stand alone.
    pub fn turns(&self) -> Option<Turns> {
        let Source::Sessions { talk, .. } = &self.workload.source else { return None };
        Some(self.maker.turns(self.workload, talk))
    }

    /// What one turn of a session says; a request that stands alone is the only turn of its session.
    pub fn turn(&self, turn: Turn) -> TurnContent {
        match &self.workload.source {
            Source::Sessions { history, talk } => {
                self.maker.turn(self.workload, *history, talk, turn)
            }
            _ => TurnContent {
                prompt: self.prompt(turn.session),
                system: None,
                planned_answer: None,
            },
        }
    }

    /// The content of request `index`; of sessions, the first turn of session `index`.
    pub fn prompt(&self, index: u64) -> Prompt {
        let first = index * u64::from(self.batch);
        let mut prompt = self.maker.draw(self.workload, first);
        for i in 1..u64::from(self.batch) {
            let more = self.maker.draw(self.workload, first + i);
            prompt.texts.extend(more.texts);
            prompt.asked_input_tokens =
                prompt.asked_input_tokens.zip(more.asked_input_tokens).map(|(a, b)| a + b);
        }
        prompt
    }
}

fn rng(parts: &[u64]) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(derive_seed(parts))
}

impl Maker<'_> {
    fn draw(self, workload: &Workload, index: u64) -> Prompt {
        let mut rng = rng(&[workload.seed, self.stream, index]);
        match &workload.source {
            Source::Prompts { pick, prompts } => {
                let chosen = &prompts[choose(*pick, prompts.len(), index, &mut rng)];
                Prompt {
                    class: chosen.id.clone(),
                    texts: vec![self.given(&chosen.text)],
                    asked_input_tokens: None,
                    max_tokens: chosen.max_tokens,
                }
            }
            Source::File { file, format, pick, max_tokens } => {
                match self.files.get(file, *format) {
                    Some(Dataset::Trace(trace)) => {
                        let entries = trace.entries();
                        let place = choose(*pick, entries.len(), index, &mut rng);
                        let entry = entries.get(place);
                        entry.map_or_else(|| nothing(workload), |e| self.traced(workload, e, index))
                    }
                    Some(Dataset::Texts { lines, .. }) => {
                        let line = lines.get(choose(*pick, lines.len(), index, &mut rng));
                        line.map_or_else(
                            || nothing(workload),
                            |line| Prompt {
                                class: workload.name.clone(),
                                texts: vec![self.given(&line.text)],
                                asked_input_tokens: None,
                                max_tokens: limit(*format, line, *max_tokens),
                            },
                        )
                    }
                    None => nothing(workload),
                }
            }
            Source::Synthetic { lengths, entries } => {
                let entry = entries.map_or(index, |n| index % u64::from(n.max(1)));
                self.synthetic(workload, lengths, entry)
            }
            Source::Sessions { history, talk } => {
                let first = Turn { session: index, number: 0 };
                self.turn(workload, *history, talk, first).prompt
            }
            Source::Mix { parts } => match self.part(workload, parts, index) {
                Some((part, nth)) => {
                    let mut prompt = self.draw(&part.workload, nth);
                    prompt.class.clone_from(&part.workload.name);
                    prompt
                }
                None => nothing(workload),
            },
        }
    }

    fn given(self, text: &str) -> String {
        self.salt.map_or_else(|| text.to_owned(), |salt| salt.given(self.stream, text))
    }

    /// The part that request `index` of a mix is drawn from, and its place among that part's requests.
    fn part<'p>(
        self,
        mix: &Workload,
        parts: &'p [MixPart],
        index: u64,
    ) -> Option<(&'p MixPart, u64)> {
        if parts.iter().any(|p| matches!(p.share, Share::Weight(_))) {
            let weight = |p: &MixPart| match p.share {
                Share::Weight(w) => w,
                Share::Count(n) => f64::from(n),
            };
            let total: f64 = parts.iter().map(weight).sum();
            let mut rng = rng(&[mix.seed, self.stream, index, purpose::MIX_PART]);
            let mut at = rng.random::<f64>() * total;
            let chosen = parts.iter().find(|p| {
                at -= weight(p);
                at < 0.0
            });
            // Rounding may leave a crumb beyond the last.
            return chosen.or(parts.last()).map(|part| (part, index));
        }
        let count = |p: &MixPart| match p.share {
            Share::Count(n) => u64::from(n),
            Share::Weight(_) => 0,
        };
        let round: u64 = parts.iter().map(count).sum();
        let mut place = index % round.max(1);
        for part in parts {
            if place < count(part) {
                return Some((part, index / round * count(part) + place));
            }
            place -= count(part);
        }
        None
    }

    fn turns(self, workload: &Workload, talk: &Talk) -> Turns {
        let seed = self.turns_seed(workload);
        match talk {
            Talk::Synthetic { turns: Spread { mean, dist: None }, .. } => Turns::Fixed(*mean),
            Talk::Synthetic { turns: Spread { dist: Some(dist), .. }, .. } => {
                Turns::Drawn { dist: dist.clone(), seed }
            }
            Talk::File { file, format, pick, turns, .. } => {
                let all = self.files.conversations(file, *format).unwrap_or_default();
                let count =
                    |c: &Conversation| u32::try_from(c.turns.len()).unwrap_or(u32::MAX).min(*turns);
                Turns::Listed { counts: all.iter().map(count).collect(), pick: *pick, seed }
            }
        }
    }

    fn turns_seed(self, workload: &Workload) -> u64 {
        derive_seed(&[workload.seed, self.stream, purpose::TURNS])
    }

    fn turn(self, workload: &Workload, history: History, talk: &Talk, turn: Turn) -> TurnContent {
        match talk {
            Talk::Synthetic { lengths, turn_isl, .. } => {
                self.synthetic_turn(workload, history, lengths, turn_isl, turn)
            }
            Talk::File { file, format, max_tokens, pick, .. } => {
                let all = self.files.conversations(file, *format).unwrap_or_default();
                let seed = self.turns_seed(workload);
                let place = conversation_of(turn.session, all.len(), *pick, seed);
                let conversation = place.and_then(|place| all.get(place));
                conversation
                    .and_then(|c| {
                        self.turn_of_file(workload, history, c, *format, *max_tokens, turn)
                    })
                    .unwrap_or_else(|| TurnContent {
                        prompt: nothing(workload),
                        system: None,
                        planned_answer: None,
                    })
            }
        }
    }

    /// Unique prompt length and answer length of turn `number` of a session.
    fn lengths_of(
        self,
        workload: &Workload,
        lengths: &Lengths,
        turn_isl: &Spread,
        Turn { session, number }: Turn,
    ) -> (u32, u32) {
        if number == 0 {
            return lengths.draw(&mut rng(&[workload.seed, self.stream, session]));
        }
        let mut rng = rng(&[workload.seed, self.stream, session, purpose::TURN, u64::from(number)]);
        (turn_isl.draw(&mut rng), lengths.draw_osl(&mut rng))
    }

    fn synthetic_turn(
        self,
        workload: &Workload,
        history: History,
        lengths: &Lengths,
        turn_isl: &Spread,
        turn: Turn,
    ) -> TurnContent {
        let Turn { session, number } = turn;
        let of = |number| self.lengths_of(workload, lengths, turn_isl, Turn { session, number });
        let (isl, osl) = of(number);
        let words = |what, tokens| {
            let parts = [workload.seed, self.stream, session, what, u64::from(number), 1];
            self.words.write(tokens, &mut rng(&parts), None)
        };
        let prompt = if number == 0 {
            self.synthetic(workload, lengths, session)
        } else {
            let before = (0..number).map(of).fold(lengths.prefix, |sum, (isl, osl)| {
                sum.saturating_add(isl).saturating_add(osl)
            });
            Prompt {
                class: workload.name.clone(),
                texts: vec![words(purpose::TURN, isl)],
                asked_input_tokens: Some(before.saturating_add(isl)),
                max_tokens: osl,
            }
        };
        let planned_answer = (history == History::Planned).then(|| words(purpose::ANSWER, osl));
        TurnContent { prompt, system: None, planned_answer }
    }

    fn turn_of_file(
        self,
        workload: &Workload,
        history: History,
        conversation: &Conversation,
        format: FileFormat,
        max_tokens: Option<u32>,
        Turn { session, number }: Turn,
    ) -> Option<TurnContent> {
        let said = conversation.turns.get(usize::try_from(number).ok()?)?;
        // A prefix cache begins at the first token: one mark, at the head.
        let text = if number == 0 { self.given(&said.text) } else { said.text.clone() };
        let line = FileLine { text, max_tokens: said.max_tokens };
        let limit = limit(format, &line, max_tokens);
        let planned = || {
            let parts = [workload.seed, self.stream, session, purpose::ANSWER, u64::from(number)];
            let words = || self.words.write(limit, &mut rng(&parts), None);
            said.answer.clone().unwrap_or_else(words)
        };
        let system = conversation.system.as_ref();
        Some(TurnContent {
            prompt: Prompt {
                class: workload.name.clone(),
                texts: vec![line.text],
                asked_input_tokens: None,
                max_tokens: limit,
            },
            system: system
                .map(|text| self.salt.map_or_else(|| text.clone(), |salt| salt.system(text))),
            planned_answer: (history == History::Planned).then(planned),
        })
    }

    fn synthetic(self, workload: &Workload, lengths: &Lengths, entry: u64) -> Prompt {
        let mut rng = rng(&[workload.seed, self.stream, entry]);
        let (isl, osl) = lengths.draw(&mut rng);
        let mark = self.salt.map(|salt| salt.mark(&[self.stream, entry]));
        let unique = self.words.write(isl, &mut rng, mark);
        let text = if lengths.prefix == 0 {
            unique
        } else {
            format!("{} {unique}", self.prefix(workload, lengths, entry))
        };
        Prompt {
            class: workload.name.clone(),
            texts: vec![text],
            asked_input_tokens: Some(lengths.prefix.saturating_add(isl)),
            max_tokens: osl,
        }
    }

    /// The prefix of the group that `entry` belongs to. From the workload's seed and the salt of the trial
    /// alone: the same in warm-up and measurement, as a system prompt is.
    fn prefix(self, workload: &Workload, lengths: &Lengths, entry: u64) -> String {
        let group = lengths.prefix_groups.map(|groups| {
            let count = u64::from(groups.count.max(1));
            match groups.pick {
                Pick::InOrder => entry % count,
                Pick::Random => rng(&[workload.seed, self.stream, entry, purpose::PREFIX_GROUP])
                    .random_range(0..count),
            }
        });
        let mut shared = match group {
            None => rng(&[workload.seed]),
            Some(group) => rng(&[workload.seed, group, purpose::PREFIX_TEXT]),
        };
        let mark = self
            .salt
            .map(|salt| salt.mark(&[workload.seed, group.unwrap_or(0), purpose::PREFIX_TEXT]));
        self.words.write(lengths.prefix, &mut shared, mark)
    }

    /// A prompt of the lengths of `entry`. Blocks with equal ids are equal text, so that a prefix cache
    /// finds what it found when the trace was taken; what no id is given for is new text.
    fn traced(self, workload: &Workload, entry: &TraceEntry, index: u64) -> Prompt {
        let mut text = String::new();
        let mut left = entry.input_tokens;
        for (place, &id) in entry.hash_ids.iter().enumerate() {
            let tokens = left.min(BLOCK_TOKENS);
            left -= tokens;
            let mut block = rng(&[workload.seed, id, purpose::BLOCK]);
            // A prefix cache looks at a block only behind those before it: one mark, at the head.
            let mark = self.salt.filter(|_| place == 0).map(|salt| salt.mark(&[self.stream, id]));
            push(&mut text, &self.words.write(tokens, &mut block, mark));
        }
        if left > 0 {
            let mut tail = rng(&[workload.seed, self.stream, index, purpose::TAIL]);
            let is_head = entry.hash_ids.is_empty();
            let mark = self.salt.filter(|_| is_head).map(|salt| salt.mark(&[self.stream, index]));
            push(&mut text, &self.words.write(left, &mut tail, mark));
        }
        Prompt {
            class: workload.name.clone(),
            texts: vec![text],
            asked_input_tokens: Some(entry.input_tokens),
            max_tokens: entry.output_tokens,
        }
    }
}

fn push(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}

/// Stands for what a plan that was checked does not lead to: a file that was not read, a mix of nothing.
fn nothing(workload: &Workload) -> Prompt {
    Prompt {
        class: workload.name.clone(),
        texts: vec![String::new()],
        asked_input_tokens: None,
        max_tokens: 1,
    }
}

/// A line's own limit wins over the workload's, which is for lines that give none. Of conversations every
/// one has a length; there the workload's, where it is given, is meant for all.
fn limit(format: FileFormat, line: &FileLine, of_workload: Option<u32>) -> u32 {
    let limit = match format {
        FileFormat::Sharegpt => of_workload.or(line.max_tokens),
        _ => line.max_tokens.or(of_workload),
    };
    limit.unwrap_or(1)
}

fn choose(pick: Pick, len: usize, index: u64, rng: &mut impl rand::Rng) -> usize {
    match pick {
        _ if len == 0 => 0,
        Pick::InOrder => usize::try_from(index % len as u64).unwrap_or(0),
        Pick::Random => rng.random_range(0..len),
    }
}

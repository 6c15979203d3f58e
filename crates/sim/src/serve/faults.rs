//! Shapes and faults of answers, for tests of clients and for users who want to see what theirs does.
//!
//! Everything is off by default. A fault with a `share` hits the requests whose number draws below it:
//! the same requests in every run of one seed, whatever their timing.

use crate::hash;
use scalebeam_model::units::Nanos;

/// What may go wrong or look unusual.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Tokens of one chunk (as engines with a stream interval send them).
    pub tokens_per_chunk: u64,
    /// The chunk that carries only the role.
    pub role: RoleChunk,
    /// Where the text is put in a chat delta.
    pub content: ContentField,
    /// No usage chunk, although it was asked for.
    pub omit_usage: bool,
    /// No `[DONE]` at the end.
    pub omit_done: bool,
    /// Lines end with CR LF.
    pub crlf: bool,
    /// No space after `data:`.
    pub no_space: bool,
    /// A comment line before every n-th content chunk; 0 is never.
    pub heartbeat_every: u64,
    /// Every byte is a write (and mostly a segment) of its own.
    pub split_bytes: bool,
    /// Answers without any content.
    pub empty_output: bool,
    /// An error status instead of an answer.
    pub status: Option<StatusFault>,
    /// A stream that does not end as it should.
    pub interrupt: Option<Interrupt>,
    /// A stream that pauses.
    pub stall: Option<Stall>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            tokens_per_chunk: 1,
            role: RoleChunk::default(),
            content: ContentField::default(),
            omit_usage: false,
            omit_done: false,
            crlf: false,
            no_space: false,
            heartbeat_every: 0,
            split_bytes: false,
            empty_output: false,
            status: None,
            interrupt: None,
            stall: None,
        }
    }
}

/// When the role-only chunk of a chat stream is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RoleChunk {
    /// Right before the first token, as vLLM does.
    #[default]
    WithFirstToken,
    /// This long after the request was read: a client that takes it for a token is too fast.
    After(Nanos),
    /// Not at all.
    Never,
}

/// The field of a chat delta that carries the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContentField {
    /// `content`
    #[default]
    Content,
    /// `reasoning_content`
    Reasoning,
    /// `tool_calls[0].function.arguments`
    ToolCalls,
}

/// An error status for a share of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatusFault {
    /// 400 to 599.
    pub status: u16,
    /// Share of the requests, 0 to 1.
    pub share: f64,
}

/// A broken stream for a share of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interrupt {
    /// How it breaks.
    pub how: Interruption,
    /// After how many tokens.
    pub after_tokens: u64,
    /// Share of the streamed requests, 0 to 1.
    pub share: f64,
}

/// How a stream breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// RST.
    Reset,
    /// FIN in the middle of the chunked body.
    Close,
    /// A properly ended body without finish reason and `[DONE]`.
    End,
    /// An error event, then `[DONE]`.
    Error,
}

impl Interruption {
    /// What the truth log says.
    pub(super) const fn outcome(self) -> &'static str {
        match self {
            Self::Reset => "injected-reset",
            Self::Close => "injected-close",
            Self::End => "injected-end",
            Self::Error => "injected-error",
        }
    }
}

/// A pause in a share of the streams; the tokens that fall into it follow in a burst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stall {
    /// How long.
    pub span: Nanos,
    /// After how many tokens.
    pub after_tokens: u64,
    /// Share of the streamed requests, 0 to 1.
    pub share: f64,
}

/// What was drawn for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Drawn {
    /// Answer with this status.
    pub(super) status: Option<u16>,
    /// Break the stream.
    pub(super) interrupt: Option<Interrupt>,
    /// Pause the stream.
    pub(super) stall: Option<Stall>,
}

/// Purposes of [`hash::draw`].
const STATUS: u64 = 0x57a7;
const INTERRUPT: u64 = 0x1217;
const STALL: u64 = 0x57a1;

impl Faults {
    /// Whether every share is one and every number makes sense; the text says what does not.
    pub(super) fn validate(&self) -> Result<(), String> {
        let shares = [
            self.status.map(|fault| fault.share),
            self.interrupt.map(|fault| fault.share),
            self.stall.map(|fault| fault.share),
        ];
        if let Some(share) = shares.into_iter().flatten().find(|share| !(0.0..=1.0).contains(share))
        {
            return Err(format!("a share of {share} is not between 0 and 1"));
        }
        if let Some(fault) = self.status.filter(|fault| !(400..600).contains(&fault.status)) {
            return Err(format!("{} is not an error status", fault.status));
        }
        if self.tokens_per_chunk == 0 {
            return Err("a chunk needs at least one token".to_owned());
        }
        Ok(())
    }

    /// What happens to request `number` under `seed`.
    pub(super) fn drawn(&self, seed: u64, number: u64) -> Drawn {
        let hit = |purpose, share| hash::unit(hash::draw(seed, purpose, number)) < share;
        Drawn {
            status: self.status.filter(|f| hit(STATUS, f.share)).map(|f| f.status),
            interrupt: self.interrupt.filter(|f| hit(INTERRUPT, f.share)),
            stall: self.stall.filter(|f| hit(STALL, f.share)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_repeat() {
        let status = Some(StatusFault { status: 503, share: 0.25 });
        let faults = Faults { status, ..Faults::default() };
        let hits = |seed| {
            (0..4_000).filter(|n| faults.drawn(seed, *n).status.is_some()).collect::<Vec<_>>()
        };
        assert!((900..1_100).contains(&hits(1).len()));
        assert_eq!(hits(1), hits(1));
        assert_ne!(hits(1), hits(2));
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let status = Some(StatusFault { status: 200, share: 0.5 });
        assert!(Faults { status, ..Faults::default() }.validate().is_err());
        let status = Some(StatusFault { status: 500, share: 1.5 });
        assert!(Faults { status, ..Faults::default() }.validate().is_err());
        assert!(Faults { tokens_per_chunk: 0, ..Faults::default() }.validate().is_err());
    }
}

//! The endpoint families that requests are written for, and what each can be asked.
//!
//! **Invariant:** what a family cannot do is said here once; the check, the plan and the load room ask.

use serde::{Deserialize, Serialize};

/// The version of HTTP that the load speaks.
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
pub enum HttpVersion {
    /// HTTP/1.1: a connection for each request in flight, kept for the next.
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2: many requests in flight share a connection. Agreed on by ALPN under TLS, by prior
    /// knowledge without.
    #[serde(rename = "2")]
    Http2,
}

/// How HTTP/2 is called when TLS is agreed on (RFC 9113, section 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";

impl HttpVersion {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "1.1",
            Self::Http2 => "2",
        }
    }

    /// Whether it is the version that is spoken where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The endpoint family that requests are written for.
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
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// OpenAI `POST /v1/chat/completions`.
    #[default]
    Chat,
    /// OpenAI `POST /v1/completions`; takes a list of prompts (batch mode).
    Completions,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// OpenAI `POST /v1/embeddings`: no stream and no output tokens; takes a list of prompts.
    Embeddings,
    /// Anthropic `POST /v1/messages`.
    Messages,
    /// Text Generation Inference `POST /generate_stream`; `/generate` without a stream.
    Tgi,
    /// `SGLang`'s own `POST /generate`.
    Sglang,
    /// Ollama `POST /api/chat`.
    OllamaChat,
    /// Ollama `POST /api/generate`.
    OllamaGenerate,
}

impl Api {
    /// Every family, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::Messages,
        Self::Tgi,
        Self::Sglang,
        Self::OllamaChat,
        Self::OllamaGenerate,
    ];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::Tgi => "tgi",
            Self::Sglang => "sglang",
            Self::OllamaChat => "ollama_chat",
            Self::OllamaGenerate => "ollama_generate",
        }
    }

    /// The path below the endpoint's base, for answers that are streamed or not.
    pub const fn path(self, stream: bool) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Messages => "/v1/messages",
            Self::Tgi if stream => "/generate_stream",
            Self::Tgi | Self::Sglang => "/generate",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
        }
    }

    /// Whether answers are made of output tokens, so that they can be streamed and have a length.
    pub const fn generates(self) -> bool {
        !matches!(self, Self::Embeddings)
    }

    /// Whether one request may carry a list of prompts.
    pub const fn takes_batch(self) -> bool {
        matches!(self, Self::Completions | Self::Embeddings)
    }

    /// Whether a request has a place for a system message.
    pub const fn has_system(self) -> bool {
        match self {
            Self::Chat
            | Self::Responses
            | Self::Messages
            | Self::OllamaChat
            | Self::OllamaGenerate => true,
            Self::Completions | Self::Embeddings | Self::Tgi | Self::Sglang => false,
        }
    }

    /// Whether a request can carry what was said before: as messages, or in front of a text that no chat
    /// template is put around.
    pub const fn takes_history(self) -> bool {
        match self {
            Self::Chat
            | Self::Completions
            | Self::Responses
            | Self::Messages
            | Self::Tgi
            | Self::Sglang
            | Self::OllamaChat => true,
            Self::Embeddings | Self::OllamaGenerate => false,
        }
    }

    /// Whether a request can ask for an answer of exactly its longest length. Engines behind the OpenAI
    /// families take `ignore_eos`, and `SGLang` has it in its own; the others have no field for it.
    pub const fn can_force_len(self) -> bool {
        matches!(self, Self::Chat | Self::Completions | Self::Responses | Self::Sglang)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_written_in_the_file_as_it_is_named() {
        for api in Api::ALL {
            assert_eq!(serde_json::to_value(api).unwrap(), api.name());
            assert!(api.path(true).starts_with('/') && api.path(false).starts_with('/'));
            assert!(api.generates() || !api.can_force_len(), "{}", api.name());
        }
        let mut names = Api::ALL.map(Api::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]));
    }
}

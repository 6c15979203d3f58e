//! The bytes of an answer, rendered once.

use super::request::Aside;
use std::fmt::Write as _;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// The answer to what is asked beside streams. A client that asks for more than there is must go without.
pub(crate) fn aside(asked: Aside) -> String {
    let (status, body) = match asked {
        Aside::Health => ("200 OK", ""),
        Aside::Models => (
            "200 OK",
            "{\"object\":\"list\",\"data\":[{\"id\":\"selftest\",\"object\":\"model\"}]}",
        ),
        Aside::Other => ("404 Not Found", ""),
    };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Which piece is written next. Each is one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Head and a chunk that says who speaks and holds no text.
    Role,
    /// A token; with the head, where nothing came before it.
    Token(u32),
}

/// A whole answer, in pieces. The same for every request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Tokens of an answer.
    pub(crate) tokens: u32,
    role: Option<Vec<u8>>,
    first: Vec<u8>,
    middle: Vec<u8>,
    last: Vec<u8>,
    /// Bytes of `last` up to the end of the last token's own chunk.
    last_token_len: usize,
}

/// One HTTP chunk that holds one server-sent event.
fn event(data: &str) -> Vec<u8> {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes()
}

/// As vLLM writes it, to the byte but for the id.
fn choice(delta: &str, finish: Option<&str>) -> String {
    let mut text = String::from(
        "{\"id\":\"chatcmpl-8a3f2c1d9b7e4f60a1b2c3d4e5f60718\",\"object\":\"chat.completion.chunk\",\
         \"created\":1763700000,\"model\":\"selftest\",\"choices\":[{\"index\":0,\"delta\":",
    );
    let finish = finish.map_or("null".to_owned(), |f| format!("\"{f}\""));
    // Writing to a String cannot fail.
    let _ = write!(text, "{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}");
    text
}

impl Answer {
    /// An answer of `tokens` tokens; `early_role` puts head and role chunk in front, as a write of its own.
    pub(crate) fn new(tokens: u32, early_role: bool) -> Self {
        let tokens = tokens.max(1);
        let delta = "{\"content\":\" token\"}";
        let middle = event(&choice(delta, None));
        let mut last = event(&choice(delta, Some("length")));
        let last_token_len = last.len();
        last.extend(event(&format!(
            "{{\"id\":\"chatcmpl-8a3f2c1d9b7e4f60a1b2c3d4e5f60718\",\"object\":\"chat.completion.chunk\",\
             \"created\":1763700000,\"model\":\"selftest\",\"choices\":[],\"usage\":{{\"prompt_tokens\":128,\
             \"total_tokens\":{},\"completion_tokens\":{tokens}}}}}",
            128 + u64::from(tokens)
        )));
        last.extend(event("[DONE]"));
        last.extend(b"0\r\n\r\n");
        let role = early_role.then(|| {
            let role = choice("{\"role\":\"assistant\",\"content\":\"\"}", None);
            [HEAD.as_bytes(), &event(&role)].concat()
        });
        let head = if early_role { "" } else { HEAD };
        let after_head = if tokens == 1 { &last } else { &middle };
        let first = [head.as_bytes(), after_head].concat();
        Self { tokens, role, first, middle, last, last_token_len }
    }

    /// What is written as soon as the request is there.
    pub(crate) fn opening(&self) -> Option<Piece> {
        self.role.as_ref().map(|_| Piece::Role)
    }

    pub(crate) fn bytes(&self, piece: Piece) -> &[u8] {
        match piece {
            Piece::Role => self.role.as_deref().unwrap_or_default(),
            Piece::Token(0) => &self.first,
            Piece::Token(n) if n + 1 == self.tokens => &self.last,
            Piece::Token(_) => &self.middle,
        }
    }

    /// How many whole tokens are in the first `bytes` bytes of an answer.
    pub(crate) fn tokens_in(&self, bytes: u64) -> u32 {
        let role = self.role.as_ref().map_or(0, Vec::len) as u64;
        let first = self.first.len() as u64;
        let first = if self.tokens == 1 {
            first - (self.last.len() - self.last_token_len) as u64
        } else {
            first
        };
        let Some(past_first) = bytes.checked_sub(role + first) else { return 0 };
        let middle = self.middle.len() as u64;
        let middles = u64::from(self.tokens.saturating_sub(2));
        if past_first < middle * middles + self.last_token_len as u64 {
            return 1 + u32::try_from((past_first / middle).min(middles)).unwrap_or(u32::MAX);
        }
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(answer: &Answer) -> Vec<u8> {
        let tokens = (0..answer.tokens).map(Piece::Token);
        answer.opening().into_iter().chain(tokens).flat_map(|p| answer.bytes(p).to_vec()).collect()
    }

    #[test]
    fn an_answer_is_one_http_message_with_its_events() {
        for (tokens, early_role) in [(1, false), (2, false), (5, false), (1, true), (5, true)] {
            let answer = Answer::new(tokens, early_role);
            let text = String::from_utf8(whole(&answer)).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert_eq!(text.matches("HTTP/1.1").count(), 1);
            assert_eq!(text.matches("\" token\"").count(), tokens as usize);
            assert_eq!(text.matches("\"role\"").count(), usize::from(early_role));
            assert_eq!(text.matches("\"length\"").count(), 1);
            assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{text}");
            let body = &text[HEAD.len()..];
            let mut rest = body;
            // The chunk sizes are right: this is how HTTP reads them.
            while !rest.starts_with("0\r\n") {
                let (size, after) = rest.split_once("\r\n").unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                let data = after[..size].strip_prefix("data: ").unwrap().trim_end();
                if data != "[DONE]" {
                    serde_json::from_str::<serde_json::Value>(data).unwrap();
                }
                rest = after[size..].strip_prefix("\r\n").unwrap();
            }
        }
    }

    proptest! {
        /// Told apart by bytes and told apart by text, a prefix holds the same tokens.
        #[test]
        fn tokens_are_counted_from_bytes(tokens in 1_u32..6, early_role: bool, cut: prop::sample::Index) {
            let answer = Answer::new(tokens, early_role);
            let all = whole(&answer);
            let n = cut.index(all.len());
            let text = String::from_utf8(all[..n].to_vec()).unwrap();
            let ends = text.split("\n\n\r\n").collect::<Vec<_>>();
            let seen = ends[..ends.len() - 1].iter().filter(|e| e.contains("\" token\"")).count();
            prop_assert_eq!(answer.tokens_in(n as u64) as usize, seen);
            prop_assert_eq!(answer.tokens_in(all.len() as u64), tokens);
        }
    }
}

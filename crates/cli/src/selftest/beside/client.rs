//! What the user says of another client: a name, and a command line with gaps for what is measured.

use crate::selftest::case::Case;
use std::path::Path;

/// Another client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its name in tables.
    pub(crate) name: String,
    /// Program and arguments, with placeholders.
    words: Vec<String>,
}

/// What may stand in braces.
const PLACEHOLDERS: &[&str] = &[
    "host",
    "port",
    "url",
    "requests",
    "streams",
    "rate",
    "tokens",
    "model",
    "result",
    "result_dir",
    "result_file",
];

/// The model that the truth server says it has.
const MODEL: &str = "selftest";
/// The host at which it listens.
const HOST: &str = "127.0.0.1";

impl Client {
    /// Reads `COMMAND` or `NAME=COMMAND`. Words are split as a shell splits them, and no shell sees them.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, command) = match text.split_once('=') {
            Some((name, command)) if is_name(name) => (Some(name), command),
            _ => (None, text),
        };
        let words = shlex::split(command).ok_or("a quote or a backslash is left open")?;
        let program = words.first().ok_or("there is no program in it")?;
        let file = Path::new(program).file_name().map(|f| f.to_string_lossy().into_owned());
        let name = name.map_or_else(|| file.unwrap_or_else(|| program.clone()), str::to_owned);
        if ["ours", "raw"].contains(&name.as_str()) {
            return Err(format!("'{name}' is a reader of this table: name it otherwise"));
        }
        let client = Self { name, words };
        client.check()?;
        Ok(client)
    }

    fn check(&self) -> Result<(), String> {
        let used = self.words.iter().flat_map(|word| pieces(word));
        let names: Vec<&str> = used.filter_map(|p| p.is_gap.then_some(p.text)).collect();
        if let Some(unknown) = names.iter().find(|n| !PLACEHOLDERS.contains(n)) {
            let known = PLACEHOLDERS.join("}, {");
            return Err(format!("there is no {{{unknown}}}; there are {{{known}}}"));
        }
        if !["url", "port"].iter().any(|n| names.contains(n)) {
            return Err("it would not know where to send: it has neither {url} nor {port}".into());
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.words.iter().flat_map(|word| pieces(word)).any(|p| p.is_gap && p.text == name)
    }

    /// Why it cannot run `case`; `None` where it can.
    pub(crate) fn why_not(&self, case: &Case) -> Option<String> {
        let shape = if case.rate_rps.is_some() { "rate" } else { "streams" };
        let missing = ["requests", shape].into_iter().find(|name| !self.has(name));
        if case.server.tls {
            return Some(
                "the server's certificate is its own, which no other client trusts".into(),
            );
        }
        missing.map(|name| format!("its command has no {{{name}}}"))
    }

    /// Its command line for `case`, against a server at `port`, with the result in `result`.
    pub(crate) fn command(&self, case: &Case, port: u16, result: &Path) -> Vec<String> {
        let value = |name: &str| match name {
            "host" => HOST.to_owned(),
            "port" => port.to_string(),
            "url" => format!("http://{HOST}:{port}"),
            "requests" => case.requests.to_string(),
            // What an open loop has in flight is not to be limited, and a closed one has no rate.
            "streams" if case.rate_rps.is_some() => case.requests.to_string(),
            "streams" => case.streams.to_string(),
            "rate" => case.rate_rps.map_or("inf".to_owned(), |rate| rate.to_string()),
            "tokens" => case.server.tokens.to_string(),
            "result" => result.display().to_string(),
            "result_dir" => result.parent().unwrap_or(result).display().to_string(),
            "result_file" => result.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            // Nothing else passed the check.
            _ => MODEL.to_owned(),
        };
        let fill = |word: &String| {
            let filled = pieces(word).into_iter();
            filled.map(|p| if p.is_gap { value(p.text) } else { p.text.to_owned() }).collect()
        };
        self.words.iter().map(fill).collect()
    }
}

fn is_name(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(is_fit)
}

/// A part of a word: text as it is, or the name of a gap.
struct Piece<'a> {
    text: &'a str,
    is_gap: bool,
}

/// The parts of `word`. Braces around anything but a name are text: arguments may be JSON.
fn pieces(word: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let (mut rest, mut from) = (word, 0);
    while let Some(open) = rest[from..].find('{').map(|i| from + i) {
        let name = rest[open + 1..].split_once('}').map(|(name, _)| name);
        let is_placeholder = |name: &&str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        };
        if let Some(name) = name.filter(is_placeholder) {
            out.push(Piece { text: &rest[..open], is_gap: false });
            out.push(Piece { text: name, is_gap: true });
            (rest, from) = (&rest[open + name.len() + 2..], 0);
        } else {
            from = open + 1;
        }
    }
    out.push(Piece { text: rest, is_gap: false });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::case::{full, open_loop, paced};

    fn client(text: &str) -> Client {
        Client::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_given_or_that_of_the_program() {
        for (text, name) in [
            ("/opt/bin/vllm-rs bench {url}", "vllm-rs"),
            ("their 'own way' {port}", "their"),
            ("v0.33=/opt/bin/vllm-rs bench {url}", "v0.33"),
            ("./run --header=a=b {url}", "run"),
        ] {
            assert_eq!(client(text).name, name, "{text}");
        }
    }

    #[test]
    fn a_command_that_cannot_work_is_refused() {
        for (text, why) in [
            ("", "there is no program in it"),
            ("x=", "there is no program in it"),
            ("run 'open {url}", "a quote or a backslash is left open"),
            ("run", "it would not know where to send: it has neither {url} nor {port}"),
            ("raw=run {url}", "'raw' is a reader of this table: name it otherwise"),
        ] {
            assert_eq!(Client::parse(text), Err(why.to_owned()), "{text}");
        }
        let unknown = Client::parse("run {url} {stream}").unwrap_err();
        assert!(
            unknown.starts_with("there is no {stream}; there are {host}, {port}, "),
            "{unknown}"
        );
    }

    #[test]
    fn gaps_are_filled_with_what_the_case_asks_for() {
        let all = client(
            "run {host}:{port} {url}/v1 -n{requests} {streams} {rate} {tokens} {model} \
             {result} {result_dir} {result_file} '{\"a\": {\"b\":1}}' 'two words' {}",
        );
        let result = Path::new("/tmp/there/result.json");
        let command = all.command(&paced(256, 2), 8000, result).join("|");
        insta::assert_snapshot!(command, @r#"run|127.0.0.1:8000|http://127.0.0.1:8000/v1|-n512|256|inf|100|selftest|/tmp/there/result.json|/tmp/there|result.json|{"a": {"b":1}}|two words|{}"#);
        let open = client("run {url} {requests} {rate} {streams}");
        let command = open.command(&open_loop(2), 1, result).join(" ");
        assert_eq!(command, "run http://127.0.0.1:1 1000 500 1000");
    }

    #[test]
    fn a_case_whose_shape_it_cannot_state_is_not_for_it() {
        let (closed, open) = (paced(4, 1), open_loop(1));
        for (text, in_closed, in_open) in [
            ("run {url} {requests} {streams} {rate}", None, None),
            ("run {url} {requests} {streams}", None, Some("its command has no {rate}")),
            ("run {url} {requests} {rate}", Some("its command has no {streams}"), None),
            (
                "run {url} {streams} {rate}",
                Some("its command has no {requests}"),
                Some("its command has no {requests}"),
            ),
        ] {
            assert_eq!(client(text).why_not(&closed).as_deref(), in_closed, "{text}");
            assert_eq!(client(text).why_not(&open).as_deref(), in_open, "{text}");
        }
        let tls = full().into_iter().find(|c| c.server.tls).unwrap();
        assert!(client("run {url} {requests} {streams}").why_not(&tls).is_some());
    }
}

//! Problems of a file, each with its place in the text and the next step.

use std::fmt;

/// Something wrong with the file, found after it was read: where by key, not yet by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As `deploy[1].place[0]`, or `host.head.addr`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(
        path: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), message: message.into(), hint: hint.into() }
    }
}

/// A problem with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key, as `deploy[1].place[0]`; empty where the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The line of the file.
    pub source_line: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        writeln!(f, "{}", self.message)?;
        let number = self.line.to_string();
        writeln!(f, "  {number} | {}", self.source_line)?;
        let lead: String = self
            .source_line
            .chars()
            .take(self.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "  {} | {lead}^", " ".repeat(number.len()))?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// All problems of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl Diagnostics {
    /// A single one.
    pub fn one(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }

    /// Finds each problem's place in the text, in the order of the text.
    pub fn locate(text: &str, file: &str, problems: Vec<Problem>) -> Self {
        let tree = toml::de::DeTable::parse(text).ok();
        let mut found: Vec<(usize, Diagnostic)> = problems
            .into_iter()
            .map(|p| {
                let offset = tree.as_ref().map_or(0, |t| find(t.get_ref(), &p.path));
                (offset, at(text, file, offset, p.path, p.message, p.hint))
            })
            .collect();
        found.sort_by_key(|(offset, _)| *offset);
        Self(found.into_iter().map(|(_, d)| d).collect())
    }
}

fn at(
    text: &str,
    file: &str,
    offset: usize,
    key: String,
    message: String,
    hint: String,
) -> Diagnostic {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let source_line = text.lines().nth(line - 1).unwrap_or_default().to_owned();
    let column = before[start..].chars().count() + 1;
    Diagnostic { file: file.to_owned(), line, column, key, message, hint, source_line }
}

/// The byte offset of the value at `path`, or of the closest table above it that is there.
fn find(table: &toml::de::DeTable<'_>, path: &str) -> usize {
    let mut offset = 0;
    let mut current: Option<&toml::de::DeValue<'_>> = None;
    for step in steps(path) {
        let next = match (&step, current) {
            (Step::Key(key), None) => entry(table, key),
            (Step::Key(key), Some(toml::de::DeValue::Table(t))) => entry(t, key),
            (Step::Index(i), Some(toml::de::DeValue::Array(a))) => {
                a.get(*i).map(|v| (v.span().start, v.get_ref()))
            }
            _ => None,
        };
        let Some((at, value)) = next else { return offset };
        offset = at;
        current = Some(value);
    }
    offset
}

fn entry<'a, 'i>(
    table: &'a toml::de::DeTable<'i>,
    key: &str,
) -> Option<(usize, &'a toml::de::DeValue<'i>)> {
    let (k, v) = table.iter().find(|(k, _)| k.get_ref() == key)?;
    Some((k.span().start, v.get_ref()))
}

enum Step {
    Key(String),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    for part in path.split('.') {
        let mut rest = part;
        if let Some(bracket) = part.find('[') {
            out.push(Step::Key(part[..bracket].to_owned()));
            rest = &part[bracket..];
            while let Some((index, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']'))
            {
                out.extend(index.parse().map(Step::Index));
                rest = after;
            }
        } else {
            out.push(Step::Key(rest.to_owned()));
        }
    }
    out
}

/// A reader's error, with the nearest known key where a key is unknown.
pub fn from_toml(text: &str, file: &str, error: &toml::de::Error) -> Diagnostic {
    let offset = error.span().map_or(0, |s| s.start);
    let message = error.message();
    let (key, message, hint) = match unknown_field(message) {
        Some((field, known)) => {
            let hint = match nearest(&field, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known here are {}", known.join(", ")),
            };
            (String::new(), format!("unknown key '{field}'"), hint)
        }
        None => match unknown_variant(message) {
            Some((variant, known)) => {
                let hint = match nearest(&variant, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean '{near}'? known are {}", known.join(", ")),
                    None => format!("known are {}", known.join(", ")),
                };
                (String::new(), format!("unknown value '{variant}'"), hint)
            }
            None => (String::new(), plain(message), String::new()),
        },
    };
    at(text, file, offset, key, message, hint)
}

/// Refuses a file of another schema before its keys are looked at, which may all be strange.
pub(super) fn schema_version(text: &str, file: &str, known: u32) -> Result<(), Diagnostics> {
    let Ok(tree) = toml::de::DeTable::parse(text) else { return Ok(()) };
    let Some((at_key, toml::de::DeValue::Integer(number))) = entry(tree.get_ref(), "schema") else {
        return Ok(());
    };
    if number.as_str() == known.to_string() {
        return Ok(());
    }
    let message = format!("schema {number} is not known to this version, which reads {known}");
    let hint = format!("write schema = {known}");
    Err(Diagnostics::one(at(text, file, at_key, "schema".to_owned(), message, hint)))
}

fn plain(message: &str) -> String {
    message.lines().next().unwrap_or_default().replace('`', "'")
}

fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    named(message, "unknown field `")
}

fn unknown_variant(message: &str) -> Option<(String, Vec<String>)> {
    named(message, "unknown variant `")
}

/// Splits serde's "unknown field `x`, expected one of `a`, `b`".
fn named(message: &str, lead: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = message.strip_prefix(lead)?.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), known))
}

/// The name among `known` that `name` was most likely meant to be, if any is close.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + name.chars().count() / 3;
    known
        .into_iter()
        // A name cut short is a likely slip however much is missing.
        .map(|k| (if k.starts_with(name) { 1 } else { distance(name, k) }, k))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Edits to come from one name to the other; a swap of neighbours is one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let width = b.len() + 1;
    let mut rows = vec![0usize; (a.len() + 1) * width];
    rows.iter_mut().take(width).enumerate().for_each(|(j, cell)| *cell = j);
    for i in 1..=a.len() {
        rows[i * width] = i;
        for j in 1..width {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[(i - 1) * width + j] + 1)
                .min(rows[i * width + j - 1] + 1)
                .min(rows[(i - 1) * width + j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[(i - 2) * width + j - 2] + 1);
            }
            rows[i * width + j] = best;
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_could_have_been_meant() {
        let known = ["warmup", "workload", "timeout", "requests"];
        assert_eq!(nearest("warmpu", known), Some("warmup"));
        assert_eq!(nearest("request", known), Some("requests"));
        assert_eq!(nearest("zebra", known), None);
    }

    #[test]
    fn a_problem_is_found_by_its_path_even_where_the_key_is_absent() {
        let text = "a = 1\n[[deploy]]\nname = 'x'\n[[deploy]]\nname = 'y'\nplace = [\n  'h',\n  'g:9',\n]\n";
        let lines = |path: &str| {
            let d = Diagnostics::locate(text, "f.toml", vec![Problem::new(path, "m", "")]);
            (d.0[0].line, d.0[0].column)
        };
        assert_eq!(lines("deploy[1].place[1]"), (8, 3));
        assert_eq!(lines("deploy[1].name"), (5, 1));
        assert_eq!(lines("deploy[1].tp"), (4, 1));
        assert_eq!(lines("nowhere"), (1, 1));
    }
}

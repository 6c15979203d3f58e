//! The output of the probe, cut at its marks.

use std::collections::BTreeMap;
use std::fmt;

/// Why something is not known. It becomes the reason of a check that is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown(pub(crate) String);

impl Unknown {
    pub(crate) fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fact, or why there is none.
pub(crate) type Known<T> = Result<T, Unknown>;

/// A fact to look at: `told(&facts.gpus)?`.
pub(crate) fn told<T>(fact: &Known<T>) -> Known<&T> {
    fact.as_ref().map_err(Clone::clone)
}

/// Begins a section.
const SECTION: &str = "@@ ";
/// Says that what the section is about could not be had.
const ABSENT: &str = "@- ";

/// Empty lines are not kept: they only set marks apart.
#[derive(Debug, Default)]
struct Section {
    body: String,
    absent: Option<String>,
}

/// Sections by name. The first of a name counts.
#[derive(Debug, Default)]
pub(crate) struct Sections(BTreeMap<String, Section>);

impl Sections {
    /// Cuts `output`. Lines before the first mark, as a login banner, belong to nobody.
    pub(crate) fn cut(output: &str) -> Self {
        let mut sections: BTreeMap<String, Section> = BTreeMap::new();
        let mut open: Option<(String, Section)> = None;
        let mut keep = |done: Option<(String, Section)>| {
            if let Some((name, section)) = done {
                sections.entry(name).or_insert(section);
            }
        };
        for line in output.lines() {
            if let Some(name) = line.strip_prefix(SECTION) {
                keep(open.replace((name.trim().to_owned(), Section::default())));
            } else if let Some((_, section)) = &mut open {
                section.take(line);
            }
        }
        keep(open);
        Self(sections)
    }

    /// What the section says.
    pub(crate) fn get(&self, name: &str) -> Known<&str> {
        match self.0.get(name) {
            Some(section) => section.known(),
            None => Err(Unknown::because(format!("the host said nothing of '{name}'"))),
        }
    }

    /// Sections called `kind NAME`, by their names.
    pub(crate) fn of<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a str, Known<&'a str>)> {
        self.0.iter().filter_map(move |(name, section)| {
            let name = name.strip_prefix(kind)?.strip_prefix(' ')?;
            Some((name, section.known()))
        })
    }
}

impl Section {
    fn take(&mut self, line: &str) {
        if let Some(why) = line.strip_prefix(ABSENT) {
            self.absent.get_or_insert_with(|| why.trim().to_owned());
        } else if !line.is_empty() {
            self.body.push_str(line);
            self.body.push('\n');
        }
    }

    fn known(&self) -> Known<&str> {
        let Some(why) = &self.absent else { return Ok(&self.body) };
        let said = self.body.lines().map(str::trim).rfind(|l| !l.is_empty());
        Err(Unknown(said.map_or_else(|| why.clone(), |said| format!("{why}: {said}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_says_why_and_what_the_program_said() {
        let cut = Sections::cut(
            "Welcome!\n@@ a\none\n\ntwo\n\n@@ b\n@- tool is not installed\n@@ c\noops\n@- tool ended with status 9\n@@ a\nlater\n",
        );
        assert_eq!(cut.get("a"), Ok("one\ntwo\n"));
        assert_eq!(cut.get("b"), Err(Unknown::because("tool is not installed")));
        assert_eq!(cut.get("c"), Err(Unknown::because("tool ended with status 9: oops")));
        assert_eq!(cut.get("d"), Err(Unknown::because("the host said nothing of 'd'")));
    }

    #[test]
    fn sections_of_a_kind_have_names() {
        let cut =
            Sections::cut("@@ program ray\n/bin/ray\n@@ programs\nx\n@@ program a b\n@- no\n");
        let found: Vec<_> = cut.of("program").collect();
        assert_eq!(found, [("a b", Err(Unknown::because("no"))), ("ray", Ok("/bin/ray\n"))]);
    }
}

//! What engines call our words: data files, read once.

use super::Word;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// In the order in which a page is asked: engines before what stands around them, since their own counts are
/// the truer ones where both are shown.
const FILES: [&str; 6] = [
    include_str!("vllm.toml"),
    include_str!("sglang.toml"),
    include_str!("llama.cpp.toml"),
    include_str!("tgi.toml"),
    include_str!("dynamo.toml"),
    include_str!("ray-serve.toml"),
];

/// The names of one engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Map {
    /// What it is called.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for readers of the file; a test asks for it")
    )]
    engine: String,
    /// Labels that tell apart ranks which all count the same.
    #[serde(default)]
    pub(super) copies: Vec<String>,
    /// Its series.
    pub(super) series: BTreeMap<Word, Series>,
}

/// What a word is called.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Series {
    /// Names over versions, the first that a page has is read. Of a histogram the name without `_bucket`.
    pub(super) names: Vec<String>,
    /// Our unit of one of theirs.
    #[serde(default = "one")]
    pub(super) scale: f64,
    /// Values that labels must have.
    #[serde(default)]
    pub(super) only: BTreeMap<String, String>,
}

const fn one() -> f64 {
    1.0
}

static MAPS: LazyLock<Vec<Map>> =
    LazyLock::new(|| FILES.iter().filter_map(|text| toml::from_str(text).ok()).collect());

/// All maps. That each file can be read is proven by a test.
pub(super) fn maps() -> &'static [Map] {
    &MAPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_can_be_read() {
        let maps: Vec<Map> = FILES.iter().map(|text| toml::from_str(text).unwrap()).collect();
        let engines: BTreeSet<&str> = maps.iter().map(|m| m.engine.as_str()).collect();
        assert_eq!(engines.len(), FILES.len());
        for map in &maps {
            assert!(map.series.values().all(|s| !s.names.is_empty() && s.scale > 0.0));
        }
    }

    #[test]
    fn every_word_is_known_to_an_engine() {
        for word in Word::ALL {
            assert!(maps().iter().any(|m| m.series.contains_key(&word)), "{word:?}");
        }
    }
}

//! What result files look like: which keys tell whose a file is, and where its numbers are.

use super::{Asked, ImportFlaw, ImportedPoint, SINGLE, number};
use crate::peers::{self, Like, Peer};
use crate::units::significant;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// In the order in which a file is held against them: the first that fits is it.
const FILES: &[&str] = &[
    include_str!("forms/aiperf.toml"),
    include_str!("forms/aiperf-csv.toml"),
    include_str!("forms/genai-perf.toml"),
    include_str!("forms/genai-perf-csv.toml"),
    include_str!("forms/guidellm.toml"),
    include_str!("forms/guidellm-old.toml"),
    include_str!("forms/inference-perf.toml"),
    include_str!("forms/inference-benchmarker.toml"),
    include_str!("forms/benchmark-report.toml"),
    include_str!("forms/mlperf.toml"),
    include_str!("forms/genai-bench.toml"),
    include_str!("forms/llmperf.toml"),
    include_str!("forms/inferencex.toml"),
    include_str!("forms/sglang.toml"),
    include_str!("forms/vllm.toml"),
    include_str!("forms/evalscope.toml"),
    include_str!("forms/evalscope-percentiles.toml"),
    include_str!("forms/llama-benchy.toml"),
    include_str!("forms/srt-rollup.toml"),
    include_str!("forms/srt-rollup-json.toml"),
    include_str!("forms/seed1.toml"),
    include_str!("forms/seed3.toml"),
    include_str!("forms/seed4.toml"),
];

/// A form of file. Places in it are JSON pointers (RFC 6901) from the object of a point; one that begins with `^` is
/// from the object around all points.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    /// What writes it.
    pub(super) tool: String,
    /// Its entry in the catalogue of tools, whose quantities and differences it has.
    catalogue: Option<String>,
    /// Places that all have something; of several with `|` between them one.
    has: Vec<String>,
    /// Places that all have one of these words.
    #[serde(default)]
    says: Vec<WordAt>,
    /// Units of the catalogue, by another word that the file may have for each of them.
    #[serde(default)]
    units: BTreeMap<String, Vec<String>>,
    /// Where the list of points is; the whole object is one where this is empty.
    #[serde(default)]
    points: String,
    /// Rows are statistics of one point, named by what is here.
    rows: Option<String>,
    /// What the tool calls a point.
    label: Option<String>,
    #[serde(default)]
    asked: AskedAt,
    #[serde(default)]
    completed: Vec<String>,
    #[serde(default)]
    failed: Vec<String>,
    /// Those that were completed and those that failed, where the file has no number of the completed.
    #[serde(default)]
    total: Vec<String>,
    /// Output tokens in all.
    #[serde(default)]
    produced: Vec<String>,
    /// Its words for statistics, and ours.
    #[serde(default)]
    statistics: BTreeMap<String, String>,
    /// In what its numbers differ from ours.
    #[serde(default)]
    differs: Vec<String>,
    #[serde(default)]
    value: Vec<ValueAt>,
    /// Lists whose elements have numbers of the point.
    #[serde(default)]
    lists: Vec<String>,
    /// Where the file says itself that it is not to be relied on.
    #[serde(default)]
    verdict: Vec<WordAt>,
    /// What the tool's client gives a request, where nobody can set it.
    limit_ms: Option<f64>,
}

/// From this share of the client's limit on, the slowest answer is where the limit cut.
const AT_THE_LIMIT: f64 = 0.95;

/// A place with one of some words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordAt {
    at: String,
    is: Vec<String>,
}

/// A sum over the elements of a list, each a product of numbers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SumAt {
    list: String,
    /// Places from the element.
    times: Vec<String>,
}

/// Where what was asked for is: the first place with something.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AskedAt {
    model: Vec<String>,
    gpus: Vec<String>,
    gpus_sum: Option<SumAt>,
    concurrency: Vec<String>,
    rate: Vec<String>,
    requests: Vec<String>,
    /// The same, where another place says that it is one.
    requests_only: Option<OnlyAt>,
    isl: Vec<String>,
    osl: Vec<String>,
}

/// A place whose number means it only where another has one of some words.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlyAt {
    at: String,
    only: WordAt,
}

/// Where a metric of ours is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueAt {
    /// Its place; `{}` stands for the tool's word of a statistic.
    at: String,
    metric: String,
    /// Which statistic it is, where the place does not say.
    stat: Option<String>,
    /// How many of our unit are one of the tool's.
    #[serde(default = "one")]
    scale: f64,
    /// The unit that the file must name beside it.
    unit: Option<String>,
    /// In what it is another metric than ours.
    near: Option<String>,
    /// It is that metric only where the file says so.
    only: Option<WordAt>,
}

const fn one() -> f64 {
    1.0
}

/// All forms. That each file can be read is proven by a test.
pub(super) fn all() -> &'static [Form] {
    static ALL: LazyLock<Vec<Form>> =
        LazyLock::new(|| FILES.iter().filter_map(|text| parse(text).ok()).collect());
    &ALL
}

fn parse(text: &str) -> Result<Form, toml::de::Error> {
    let mut form: Form = toml::from_str(text)?;
    if let Some(peer) = form.catalogue.as_deref().and_then(peers::find) {
        form.take(peer);
    }
    Ok(form)
}

impl Form {
    /// The quantities of `peer` that are ours, each at its place.
    fn take(&mut self, peer: &Peer) {
        self.differs.extend(peer.differs.iter().map(|text| (*text).to_owned()));
        let words =
            peer.statistics().filter_map(|(word, statistic)| Some((word.to_owned(), statistic?)));
        self.statistics.extend(words);
        for quantity in peer.quantities {
            let at = format!("/{}", quantity.key);
            let (metric, near) = match quantity.like {
                Like::Same(metric) => (metric, None),
                Like::Near(metric, why) => (metric, Some(why.to_owned())),
                Like::Completed => {
                    self.completed.push(at);
                    continue;
                }
                Like::Failed => {
                    self.failed.push(at);
                    continue;
                }
                Like::Nothing => continue,
            };
            self.value.push(ValueAt {
                at,
                metric: metric.to_owned(),
                stat: None,
                scale: quantity.unit.to_ours(metric),
                unit: peer.says_unit.then(|| quantity.unit.name.to_owned()),
                near,
                only: None,
            });
        }
    }

    /// Whether `roots` are of this form.
    pub(super) fn writes(&self, roots: &[Value]) -> bool {
        let is_there = |root: &Value, place: &str| root.pointer(place).is_some();
        let has = |root: &Value| {
            self.has.iter().all(|places| places.split('|').any(|place| is_there(root, place)))
        };
        let says =
            |root: &Value| self.says.iter().all(|word| word.of(root.pointer(&word.at)).is_some());
        roots.first().is_some_and(|root| has(root) && says(root))
    }

    pub(super) fn differs(&self) -> Vec<String> {
        self.differs.clone()
    }

    /// The object of each point, and the one around it.
    pub(super) fn points<'a>(&self, roots: &'a [Value]) -> Vec<(&'a Value, Point<'a>)> {
        if self.rows.is_some() {
            return roots.first().map(|root| (root, Point::Rows(roots))).into_iter().collect();
        }
        let mut out = Vec::new();
        for root in roots {
            match root.pointer(&self.points).and_then(Value::as_array) {
                Some(points) => out.extend(points.iter().map(|p| (root, Point::Object(p)))),
                None if self.points.is_empty() => out.push((root, Point::Object(root))),
                None => {}
            }
        }
        out
    }

    /// Numbers around the list of points.
    pub(super) fn around(&self, roots: &[Value]) -> BTreeMap<String, f64> {
        let mut out = BTreeMap::new();
        if !self.points.is_empty() {
            roots.iter().for_each(|root| numbers(root, &mut String::new(), &mut out));
        }
        out
    }

    pub(super) fn point(&self, root: &Value, point: Point<'_>) -> ImportedPoint {
        match point {
            Point::Object(point) => self.of_object(Look { root, point, used: BTreeSet::new() }),
            Point::Rows(rows) => self.of_rows(rows),
        }
    }

    fn of_object(&self, mut look: Look<'_>) -> ImportedPoint {
        let mut out = ImportedPoint {
            label: self.label.as_deref().and_then(|place| look.text(place)).unwrap_or_default(),
            asked: self.asked.read(&mut look),
            completed: look.first(&self.completed),
            failed: look.first(&self.failed),
            produced: look.first(&self.produced),
            ..ImportedPoint::default()
        };
        let rest = |total: f64| total - out.failed.unwrap_or(0.0);
        out.completed = out.completed.or_else(|| look.first(&self.total).map(rest));
        for value in &self.value {
            let is_it = |word: &WordAt| word.of(look.at(&word.at)).is_some();
            if value.only.as_ref().is_none_or(is_it) {
                self.take_value(value, &mut look, &mut out);
            }
        }
        let own =
            |said| ImportFlaw::new("its_own_verdict", format!("the file says of itself: {said}"));
        out.flaws =
            self.verdict.iter().filter_map(|word| word.of(look.at(&word.at)).map(own)).collect();
        out.flaws.extend(self.limit_ms.and_then(|limit| censored(&out, limit)));
        out.other = look.rest();
        for list in &self.lists {
            look.elements(list, &mut out.other);
        }
        out
    }

    /// Every statistic of `value` that is there.
    fn take_value(&self, value: &ValueAt, look: &mut Look<'_>, out: &mut ImportedPoint) {
        let places: Vec<(String, &str)> = if value.at.contains("{}") {
            let places = self.statistics.iter();
            places.map(|(word, ours)| (value.at.replace("{}", word), ours.as_str())).collect()
        } else {
            vec![(value.at.clone(), value.stat.as_deref().unwrap_or(SINGLE))]
        };
        for (place, stat) in places {
            let Some(of_unit) = self.of_unit(look.unit(&place), value.unit.as_deref()) else {
                continue;
            };
            let Some(number) = look.number(&place) else { continue };
            out.put(&value.metric, stat, number * of_unit * value.scale, value.near.as_ref());
        }
    }

    /// How many of `unit` are one of what the file says; absent where nobody knows. A file that says nothing means it.
    fn of_unit(&self, said: Option<&str>, unit: Option<&str>) -> Option<f64> {
        let (Some(said), Some(unit)) = (said, unit) else { return Some(1.0) };
        let is_word = || self.units.get(said).is_some_and(|units| units.iter().any(|u| u == unit));
        if said == unit || is_word() {
            return Some(1.0);
        }
        Some(seconds(said)? / seconds(unit)?)
    }

    /// Each row has one statistic of every metric.
    fn of_rows(&self, rows: &[Value]) -> ImportedPoint {
        let mut out = ImportedPoint::default();
        for row in rows {
            let word = self.rows.as_deref().and_then(|place| row.pointer(place)?.as_str());
            let stat = word.and_then(|word| self.statistics.get(word));
            let mut look = Look { root: row, point: row, used: BTreeSet::new() };
            for value in &self.value {
                let (Some(stat), Some(number)) = (stat, look.number(&value.at)) else { continue };
                out.put(&value.metric, stat, number * value.scale, value.near.as_ref());
            }
            let word = word.unwrap_or_default();
            out.other
                .extend(look.rest().into_iter().map(|(place, n)| (format!("{word}{place}"), n)));
        }
        out
    }
}

impl AskedAt {
    fn read(&self, look: &mut Look<'_>) -> Asked {
        Asked {
            model: self.model.iter().find_map(|place| look.text(place)),
            gpus: look.first(&self.gpus).or_else(|| self.gpus_sum.as_ref()?.of(look)),
            concurrency: look.first(&self.concurrency),
            rate: look.first(&self.rate),
            requests: look.first(&self.requests).or_else(|| {
                let place = self.requests_only.as_ref()?;
                place.only.of(look.at(&place.only.at))?;
                look.number(&place.at)
            }),
            isl: look.first(&self.isl),
            osl: look.first(&self.osl),
        }
    }
}

/// Of failures beside an answer that took nearly all of the client's limit: what took longer is in no number.
fn censored(point: &ImportedPoint, limit_ms: f64) -> Option<ImportFlaw> {
    let failed = point.failed.filter(|n| *n > 0.0)?;
    let slowest = point.value("e2e_sent_ms", "max").filter(|ms| *ms >= AT_THE_LIMIT * limit_ms)?;
    let all = point.completed.map_or_else(String::new, |n| format!(" of {}", n + failed));
    let message = format!(
        "{failed}{all} requests were cut off by the client's limit of {} s (the slowest answer took {} s): latencies and throughput are of those that were faster",
        limit_ms / 1e3,
        significant(slowest / 1e3)
    );
    Some(ImportFlaw::new("censored", message))
}

impl SumAt {
    /// Absent where one of the numbers is.
    fn of(&self, look: &Look<'_>) -> Option<f64> {
        let elements = look.at(&self.list)?.as_array().filter(|list| !list.is_empty())?;
        let product = |element: &Value| {
            let factors = self.times.iter().map(|place| number(element.pointer(place)?));
            factors.product::<Option<f64>>()
        };
        elements.iter().map(product).sum()
    }
}

impl WordAt {
    /// What is there, where it is one of the words.
    fn of<'a>(&self, there: Option<&'a Value>) -> Option<&'a str> {
        let said = match there? {
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            other => other.as_str()?.trim(),
        };
        self.is.iter().any(|word| word == said).then_some(said)
    }
}

/// One of a unit of time.
fn seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        _ => return None,
    })
}

/// A point in its file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Point<'a> {
    Object(&'a Value),
    /// Rows of statistics.
    Rows(&'a [Value]),
}

/// A look at the object of a point, which remembers what was taken out of it.
struct Look<'a> {
    root: &'a Value,
    point: &'a Value,
    used: BTreeSet<String>,
}

impl Look<'_> {
    fn at(&self, place: &str) -> Option<&Value> {
        match place.strip_prefix('^') {
            Some(place) => self.root.pointer(place),
            None => self.point.pointer(place),
        }
    }

    fn number(&mut self, place: &str) -> Option<f64> {
        let found = number(self.at(place)?)?;
        self.used.insert(place.to_owned());
        Some(found)
    }

    fn first(&mut self, places: &[String]) -> Option<f64> {
        places.iter().find_map(|place| self.number(place))
    }

    fn text(&self, place: &str) -> Option<String> {
        self.at(place)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// What the file says beside `place` that it is in.
    fn unit(&self, place: &str) -> Option<&str> {
        let (parent, _) = place.rsplit_once('/')?;
        let says = |key| self.at(&format!("{parent}/{key}")).and_then(Value::as_str);
        says("unit").or_else(|| says("units"))
    }

    /// Numbers of the elements of `list`.
    fn elements(&self, list: &str, out: &mut BTreeMap<String, f64>) {
        let elements = self.at(list).and_then(Value::as_array);
        for (n, element) in elements.into_iter().flatten().enumerate() {
            numbers(element, &mut format!("{list}/{n}"), out);
        }
    }

    /// Numbers of the point that nobody took. Lists are of single requests, and of one statistic each.
    fn rest(&self) -> BTreeMap<String, f64> {
        let mut out = BTreeMap::new();
        numbers(self.point, &mut String::new(), &mut out);
        out.retain(|place, _| !self.used.contains(place));
        out
    }
}

fn numbers(value: &Value, place: &mut String, out: &mut BTreeMap<String, f64>) {
    if let Value::Object(object) = value {
        for (key, value) in object {
            let length = place.len();
            place.push('/');
            place.push_str(&key.replace('~', "~0").replace('/', "~1"));
            numbers(value, place, out);
            place.truncate(length);
        }
    } else if let Some(number) = number(value) {
        out.insert(place.clone(), number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    #[test]
    fn every_form_is_read_and_names_metrics_of_ours() {
        for text in FILES {
            let form = parse(text).unwrap_or_else(|why| panic!("{why}\n{text}"));
            assert!(!form.value.is_empty() && !form.has.is_empty(), "{}", form.tool);
            for value in &form.value {
                assert!(metrics::find(&value.metric).is_some(), "{}: {}", form.tool, value.metric);
            }
            if let Some(name) = &form.catalogue {
                assert!(peers::find(name).is_some(), "{name}");
            }
        }
    }
}

//! Pages of exporters that already run on a host: GPUs by dcgm-exporter, the machine by node_exporter.
//!
//! What a quantity is called, and which samples it is the sum of, stands in a data file an exporter
//! (`names/NAME.toml`). What a page does not have is absent.

use super::table::one;
use super::{Device, Part, Quantity, Told};
use crate::exposition::{Sample, samples};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Whose page it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exporter {
    /// NVIDIA's, of GPUs.
    Dcgm,
    /// Prometheus' own, of a machine.
    Node,
}

impl Exporter {
    fn names(self) -> Option<&'static Names> {
        static DCGM: LazyLock<Option<Names>> = LazyLock::new(|| read_names(Exporter::Dcgm));
        static NODE: LazyLock<Option<Names>> = LazyLock::new(|| read_names(Exporter::Node));
        match self {
            Self::Dcgm => DCGM.as_ref(),
            Self::Node => NODE.as_ref(),
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Dcgm => include_str!("names/dcgm.toml"),
            Self::Node => include_str!("names/node_exporter.toml"),
        }
    }
}

/// That each file can be read is proven by a test.
fn read_names(exporter: Exporter) -> Option<Names> {
    toml::from_str(exporter.file()).ok()
}

/// A data file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    /// What it is called.
    program: String,
    device: Vec<OfDevice>,
}

/// Series of one kind of device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDevice {
    part: Part,
    /// What a device is called, with values of labels: `{device}:{port}`; `{host}` is its host.
    name: String,
    /// The label that holds its number.
    index: Option<String>,
    /// A label that only samples of a piece of the device have.
    piece: Option<String>,
    /// Samples of one device say the same of it: the first is taken, and not their sum.
    #[serde(default)]
    once: bool,
    /// Quantities that such samples tell of the whole device.
    #[serde(default)]
    whole: Vec<Quantity>,
    /// Of each quantity the ways to find it; the first that the page has all terms of is taken.
    series: BTreeMap<Quantity, Vec<Sum>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    add: Vec<Term>,
    #[serde(default)]
    subtract: Vec<Term>,
    /// Our unit of one of theirs.
    #[serde(default = "one")]
    scale: f64,
}

/// All samples of a name, or some of them by their labels.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Term {
    All(String),
    Some {
        name: String,
        #[serde(default)]
        only: BTreeMap<String, Vec<String>>,
        #[serde(default)]
        without: BTreeMap<String, Vec<String>>,
    },
}

impl Term {
    fn name(&self) -> &str {
        match self {
            Self::All(name) | Self::Some { name, .. } => name,
        }
    }

    fn is(&self, sample: &Sample<'_>) -> bool {
        let has = |(label, values): (&String, &Vec<String>)| {
            sample.label(label).is_some_and(|found| values.iter().any(|v| v == found))
        };
        sample.name == self.name()
            && match self {
                Self::All(_) => true,
                Self::Some { only, without, .. } => {
                    only.iter().all(has) && !without.iter().any(has)
                }
            }
    }
}

/// What a page of `exporter` says of `host`, by device.
///
/// # Errors
/// When there is nothing in it that the exporter would say.
pub fn read(exporter: Exporter, host: &str, page: &str) -> Result<Told, String> {
    let names = exporter.names().ok_or("its names cannot be read")?;
    let samples: Vec<Sample<'_>> = samples(page).collect();
    let of = |kind: &OfDevice| kind.devices(host, &samples);
    let told: Vec<_> = names.device.iter().flat_map(of).collect();
    match told.is_empty() {
        true => Err(format!("the page has no series of {}", names.program)),
        false => Ok(told),
    }
}

/// Names of all series that `exporter` is asked for.
pub fn series_names(exporter: Exporter) -> Vec<&'static str> {
    let kinds = exporter.names().map_or(&[][..], |names| &names.device);
    let sums = kinds.iter().flat_map(|kind| kind.series.values()).flatten();
    let terms = sums.flat_map(|sum| sum.add.iter().chain(&sum.subtract));
    let mut names: Vec<&str> = terms.map(Term::name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl OfDevice {
    fn devices(&self, host: &str, samples: &[Sample<'_>]) -> Told {
        let mut by_device: BTreeMap<Device, Vec<&Sample<'_>>> = BTreeMap::new();
        for sample in samples.iter().filter(|s| self.has(s.name)) {
            if let Some(device) = self.device(host, sample) {
                by_device.entry(device).or_default().push(sample);
            }
        }
        let values = |samples: Vec<&Sample<'_>>| -> Vec<(Quantity, f64)> {
            let one = |(q, sums): (&Quantity, &Vec<Sum>)| {
                let sum = |sum: &Sum| self.sum(*q, sum, &samples);
                Some((*q, sums.iter().find_map(sum).filter(|v| *v >= 0.0)?))
            };
            self.series.iter().filter_map(one).collect()
        };
        let told = by_device.into_iter().map(|(device, samples)| (device, values(samples)));
        told.filter(|(_, values)| !values.is_empty()).collect()
    }

    fn has(&self, name: &str) -> bool {
        let sums = self.series.values().flatten();
        sums.flat_map(|s| s.add.iter().chain(&s.subtract)).any(|term| term.name() == name)
    }

    fn device(&self, host: &str, sample: &Sample<'_>) -> Option<Device> {
        let index = match &self.index {
            Some(label) => Some(sample.label(label)?.parse().ok()?),
            None => None,
        };
        let name = filled(&self.name, host, sample)?;
        Some(Device { host: host.to_owned(), part: self.part, name, index, role: None })
    }

    /// The sum of every term; nothing where one of them has no sample.
    fn sum(&self, quantity: Quantity, sum: &Sum, samples: &[&Sample<'_>]) -> Option<f64> {
        let term = |term: &Term| self.term(quantity, term, samples);
        let added: f64 = sum.add.iter().map(term).sum::<Option<f64>>()?;
        let subtracted: f64 = sum.subtract.iter().map(term).sum::<Option<f64>>()?;
        Some((added - subtracted) * sum.scale)
    }

    fn term(&self, quantity: Quantity, term: &Term, samples: &[&Sample<'_>]) -> Option<f64> {
        let mine = || samples.iter().filter(|s| term.is(s)).copied();
        let Some(piece) = &self.piece else {
            if self.once {
                return mine().next().map(|s| s.value);
            }
            let values: Vec<f64> = mine().map(|s| s.value).collect();
            return (!values.is_empty()).then(|| values.iter().sum());
        };
        // A card that several pods share has a row for each of them, and each says the same of it.
        let is_piece = |s: &&Sample<'_>| s.label(piece).is_some_and(|id| !id.is_empty());
        let of_card = mine().find(|s| !is_piece(s));
        let of_piece = || mine().find(is_piece).filter(|_| self.whole.contains(&quantity));
        of_card.or_else(of_piece).map(|s| s.value)
    }
}

/// `pattern` with the values of labels in place of `{label}`; nothing where the sample lacks one.
fn filled(pattern: &str, host: &str, sample: &Sample<'_>) -> Option<String> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (label, after) = after.split_once('}')?;
        out.push_str(before);
        out.push_str(if label == "host" { host } else { sample.label(label)? });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests;

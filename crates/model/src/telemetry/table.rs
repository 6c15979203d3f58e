//! Tables that makers' programs print of their GPUs, and logs of such tables: comma-separated, with a head.
//!
//! What a column is called stands in a data file a program (`names/NAME.toml`). Columns are found by the head,
//! whatever their order, case and unit; a cell that is no number (`[N/A]`, `[Not Supported]`, `N/A`), and no word that
//! the data file knows, is absent and never zero.

use super::{Device, Part, Quantity};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Whose table it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// `nvidia-smi`.
    Nvidia,
    /// `amd-smi`.
    Amd,
    /// `xpu-smi`.
    Intel,
    /// `hl-smi`.
    Gaudi,
    /// Seed 4's power log.
    Seed4,
    /// srt-slurm's samples.
    SrtSlurm,
}

impl Maker {
    /// All of them; a log is looked at as each in this order.
    pub const ALL: [Self; 6] =
        [Self::Seed4, Self::SrtSlurm, Self::Nvidia, Self::Amd, Self::Intel, Self::Gaudi];

    const fn file(self) -> &'static str {
        match self {
            Self::Nvidia => include_str!("names/nvidia-smi.toml"),
            Self::Amd => include_str!("names/amd-smi.toml"),
            Self::Intel => include_str!("names/xpu-smi.toml"),
            Self::Gaudi => include_str!("names/hl-smi.toml"),
            Self::Seed4 => include_str!("names/seed4.toml"),
            Self::SrtSlurm => include_str!("names/srt-slurm.toml"),
        }
    }

    /// The names of its columns. That each file can be read is proven by a test.
    fn names(self) -> Option<&'static Names> {
        static ALL: LazyLock<Vec<(Maker, Names)>> = LazyLock::new(|| {
            let read = |maker: Maker| Some((maker, toml::from_str(maker.file()).ok()?));
            Maker::ALL.into_iter().filter_map(read).collect()
        });
        ALL.iter().find(|(maker, _)| *maker == self).map(|(_, names)| names)
    }
}

/// A data file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    /// What it is called.
    maker: String,
    /// The column with a GPU's number.
    index: Vec<String>,
    /// That with its UUID.
    #[serde(default)]
    uuid: Vec<String>,
    /// That with its host, in a table of several.
    #[serde(default)]
    host: Vec<String>,
    /// That with the time of a row.
    #[serde(default)]
    time: Vec<String>,
    columns: BTreeMap<Quantity, Column>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    /// Over versions; the first that the table has is read.
    names: Vec<String>,
    /// Our unit of one of theirs.
    #[serde(default = "one")]
    scale: f64,
    /// What words mean, in small letters.
    #[serde(default)]
    words: BTreeMap<String, f64>,
}

impl Column {
    /// What a cell says.
    fn value(&self, cell: &str) -> Option<f64> {
        let word = || self.words.get(&cell.to_lowercase()).copied();
        amount(cell).map(|number| number * self.scale).or_else(word)
    }
}

/// The scale of what is in our unit already.
pub(super) const fn one() -> f64 {
    1.0
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Of which GPU. Without a UUID it is named by its number.
    pub device: Device,
    /// When, as written there.
    pub time: Option<String>,
    /// What was a number.
    pub values: Vec<(Quantity, f64)>,
}

/// A table that is read line by line.
#[derive(Debug, Clone)]
pub struct Table {
    names: Option<&'static Names>,
    head: Vec<String>,
}

impl Table {
    /// A table of `maker`, of which nothing was read yet.
    pub fn new(maker: Maker) -> Self {
        Self { names: maker.names(), head: Vec::new() }
    }

    /// One whose head is known already.
    pub(super) fn of(maker: Maker, head: Vec<String>) -> Self {
        Self { names: maker.names(), head }
    }

    /// Whether a head has been read.
    pub const fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// What the table's maker is called.
    pub fn maker(&self) -> &str {
        self.names.map_or("", |names| names.maker.as_str())
    }

    /// The row that `line` is, of a GPU of `host` where the table does not say another. A head is kept and is no row;
    /// a program may print it again. Other lines are passed over.
    pub fn row(&mut self, host: &str, line: &str) -> Option<Row> {
        let names = self.names?;
        let cells = cells(line);
        let head: Vec<String> = cells.iter().map(|cell| column(cell)).collect();
        if head.iter().any(|cell| names.index.contains(cell)) {
            self.head = head;
            return None;
        }
        self.cells(host, &cells)
    }

    /// The row that these cells are, as [`Table::row`].
    pub(super) fn cells(&self, host: &str, cells: &[String]) -> Option<Row> {
        let names = self.names?;
        if cells.len() != self.head.len() {
            return None;
        }
        let cell = |wanted: &[String]| {
            let at = wanted.iter().find_map(|name| self.head.iter().position(|c| c == name))?;
            cells.get(at).map(|cell| cell.trim())
        };
        let index: u32 = cell(&names.index)?.parse().ok()?;
        let uuid = cell(&names.uuid).filter(|uuid| !uuid.is_empty());
        let device = Device {
            host: cell(&names.host).unwrap_or(host).to_owned(),
            part: Part::Gpu,
            name: uuid.map_or_else(|| format!("{} {index}", names.maker), str::to_owned),
            index: Some(index),
            role: None,
        };
        let value = |(quantity, column): (&Quantity, &Column)| {
            let found = column
                .names
                .iter()
                .find_map(|name| column.value(cell(std::slice::from_ref(name))?));
            Some((*quantity, found?))
        };
        let values = names.columns.iter().filter_map(value).collect();
        Some(Row { device, time: cell(&names.time).map(str::to_owned), values })
    }
}

/// What a column is called: `power.draw [W]` is `power.draw`, `GPU Power (W)` is `gpu power`.
fn column(cell: &str) -> String {
    let end = cell.find(['[', '(']).unwrap_or(cell.len());
    cell.get(..end).unwrap_or(cell).trim().to_lowercase()
}

/// The number in `72.19 W`, `345 MHz`, `36`; none in `[N/A]`.
fn amount(cell: &str) -> Option<f64> {
    let number: f64 = cell.split(' ').next()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// The cells of a line; one in quotes may hold commas, as a list does.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in line.trim_end_matches(['\r', '\n']).chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(std::mem::take(&mut cell).trim().to_owned()),
            c => cell.push(c),
        }
    }
    cells.push(cell.trim().to_owned());
    cells
}

#[cfg(test)]
mod tests;

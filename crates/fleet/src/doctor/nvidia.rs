//! What `nvidia-smi` prints: tables by the names of their columns, and matrices of links.
//!
//! **Invariant:** `[N/A]`, anything else in brackets (`[Not Supported]`, `[Unknown Error]`) and an empty
//! cell are absent, never 0.

use super::sections::{Known, Unknown};
use std::collections::BTreeMap;

/// A row: cells by the name of their column, without its unit.
pub(crate) type Row = BTreeMap<String, String>;

/// The rows of `--format=csv` output whose first column is called `first`. Lines before the head, as
/// warnings, are passed over.
pub(crate) fn table(text: &str, first: &str) -> Known<Vec<Row>> {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let is_head = |line: &&str| line.split(',').next().is_some_and(|c| name_of(c) == first);
    let head = lines.find(is_head).ok_or_else(|| {
        let said = text.lines().next().unwrap_or("nothing").trim();
        Unknown::because(format!("nvidia-smi gave no table with '{first}', but: {said}"))
    })?;
    let names: Vec<String> = head.split(',').map(|c| name_of(c).to_owned()).collect();
    Ok(lines.map(|line| row(&names, line)).collect())
}

/// `memory.total [MiB]` is the column `memory.total`.
fn name_of(column: &str) -> &str {
    column.split('[').next().unwrap_or_default().trim()
}

fn row(names: &[String], line: &str) -> Row {
    let cells = line.split(',').map(str::trim);
    let known = names.iter().cloned().zip(cells).filter(|(_, cell)| is_value(cell));
    known.map(|(name, cell)| (name, cell.to_owned())).collect()
}

fn is_value(cell: &str) -> bool {
    !(cell.is_empty() || cell == "N/A" || cell.starts_with('['))
}

/// The number before a unit: `81559 MiB`, `700.00 W`.
pub(crate) fn number(row: &Row, column: &str) -> Option<f64> {
    row.get(column)?.split_whitespace().next()?.parse().ok()
}

/// One GPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gpu {
    pub(crate) index: u32,
    pub(crate) uuid: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) driver: Option<String>,
    pub(crate) memory_total_mib: Option<f64>,
    pub(crate) memory_free_mib: Option<f64>,
    pub(crate) mig: Option<String>,
    pub(crate) ecc: Option<String>,
    pub(crate) persistence: Option<String>,
    pub(crate) power_limit_w: Option<f64>,
    pub(crate) power_default_w: Option<f64>,
    pub(crate) max_sm_mhz: Option<f64>,
    pub(crate) set_sm_mhz: Option<f64>,
}

/// Reads the table of GPUs, each with the cells that `more` has of the same index; a row without an index
/// is nobody's.
pub(crate) fn gpus(text: &str, more: &[Row]) -> Known<Vec<Gpu>> {
    let mut rows = table(text, "index")?;
    for row in &mut rows {
        let same = more.iter().filter(|m| m.get("index") == row.get("index"));
        let cells: Vec<_> = same.flatten().map(|(n, c)| (n.clone(), c.clone())).collect();
        row.extend(cells);
    }
    Ok(rows.iter().filter_map(gpu).collect())
}

fn gpu(row: &Row) -> Option<Gpu> {
    let word = |column: &str| row.get(column).cloned();
    Some(Gpu {
        index: row.get("index")?.parse().ok()?,
        uuid: word("uuid"),
        name: word("name"),
        driver: word("driver_version"),
        memory_total_mib: number(row, "memory.total"),
        memory_free_mib: number(row, "memory.free"),
        mig: word("mig.mode.current"),
        ecc: word("ecc.mode.current"),
        persistence: word("persistence_mode"),
        power_limit_w: number(row, "power.limit"),
        power_default_w: number(row, "power.default_limit"),
        max_sm_mhz: number(row, "clocks.max.sm"),
        set_sm_mhz: number(row, "clocks.applications.graphics"),
    })
}

/// A matrix of `topo -m` or `topo -p2p r`: what is between each two GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Matrix {
    between: BTreeMap<(u32, u32), String>,
    /// NUMA node by GPU.
    numa: BTreeMap<u32, u32>,
}

impl Matrix {
    /// Reads it. Columns of network cards and CPUs, and the legend, are passed over.
    pub(crate) fn read(text: &str) -> Known<Self> {
        let plain = without_escapes(text);
        let mut lines = plain.lines();
        let is_head = |l: &&str| l.split('\t').any(|cell| gpu_id(cell) == Some(0));
        let no_matrix = || Unknown::because("nvidia-smi topo printed no matrix of GPUs");
        let head = lines.find(is_head).ok_or_else(no_matrix)?;
        let columns: Vec<Option<u32>> = head.split('\t').map(gpu_id).collect();
        let numa_column = head.split('\t').position(|cell| cell.trim() == "NUMA Affinity");
        let mut matrix = Self::default();
        for line in lines {
            // The name of a row may be set off by a blank cell.
            let Some(from) = line.split('\t').next().and_then(gpu_id) else { continue };
            let node = numa_column.and_then(|at| line.split('\t').nth(at)?.trim().parse().ok());
            matrix.numa.extend(node.map(|node| (from, node)));
            for (cell, column) in line.split('\t').zip(&columns).skip(1) {
                if let Some(to) = column.filter(|to| *to != from) {
                    matrix.between.insert((from, to), cell.trim().to_owned());
                }
            }
        }
        Ok(matrix)
    }

    /// What is between two GPUs: `NV12`, `PIX`, `SYS`, or `OK` and `CNS` in a matrix of peers.
    pub(crate) fn between(&self, a: u32, b: u32) -> Option<&str> {
        self.between.get(&(a, b)).or_else(|| self.between.get(&(b, a))).map(String::as_str)
    }

    /// NUMA nodes by GPU, of those that have one.
    pub(crate) const fn numa(&self) -> &BTreeMap<u32, u32> {
        &self.numa
    }
}

fn gpu_id(cell: &str) -> Option<u32> {
    cell.trim().strip_prefix("GPU")?.parse().ok()
}

/// Without what a terminal underlines the head by.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, tail)| tail);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{A100_TOPOLOGY, H100_GPUS, H100_MODES, H100_TOPOLOGY, P2P};

    #[test]
    fn columns_are_found_by_name_and_what_is_not_available_is_absent() {
        let modes = table(H100_MODES, "index").unwrap();
        let gpus = gpus(H100_GPUS, &modes).unwrap();
        assert_eq!(gpus.len(), 2);
        assert_eq!(gpus[0].name.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(gpus[0].memory_total_mib, Some(81_559.0));
        assert_eq!(gpus[1].memory_free_mib, None);
        assert_eq!(gpus[1].power_limit_w, None);
        assert_eq!(gpus[0].mig.as_deref(), Some("Disabled"));
    }

    #[test]
    fn what_is_no_table_says_what_it_is() {
        let said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.";
        let why = gpus(said, &[]).unwrap_err().to_string();
        assert!(why.contains("couldn't communicate"), "{why}");
        assert_eq!(gpus("index, name\nx, y\n", &[]), Ok(Vec::new()));
    }

    #[test]
    fn a_matrix_has_links_of_gpus_only() {
        let h100 = Matrix::read(H100_TOPOLOGY).unwrap();
        assert_eq!(h100.between(0, 3), Some("NV18"));
        assert_eq!(h100.between(0, 9), None);
        let a100 = Matrix::read(A100_TOPOLOGY).unwrap();
        assert_eq!((a100.between(0, 1), a100.between(0, 2)), (Some("NV12"), Some("SYS")));
        assert_eq!(h100.numa().len(), 4);
        assert_eq!((a100.numa()[&0], a100.numa()[&3]), (0, 1));
        let peers = Matrix::read(P2P).unwrap();
        assert!(peers.numa().is_empty());
        assert_eq!((peers.between(0, 1), peers.between(2, 1)), (Some("OK"), Some("CNS")));
        assert!(Matrix::read("no such option").is_err());
    }
}

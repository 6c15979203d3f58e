//! Names as people type them, and the nearest known ones for an error message.

/// Lower case without separators, so that `H100-PCIe-80G` and `h100_pcie_80g` are one name.
pub(super) fn folded(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The up to three names in `known` that are closest to `wanted`, closest first.
pub fn nearest(wanted: &str, known: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let wanted = folded(wanted);
    let mut ranked: Vec<(usize, &'static str)> =
        known.map(|name| (distance(&wanted, &folded(name)), name)).collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked.into_iter().take(3).map(|(_, name)| name).collect()
}

/// The Levenshtein distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_levenshtein() {
        for (a, b, want) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("h10", "h100", 1)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn the_closest_name_comes_first() {
        let known = ["H100-SXM", "L40S", "A10G"];
        assert_eq!(nearest("l40", known.into_iter())[0], "L40S");
    }
}

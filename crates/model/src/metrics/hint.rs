//! What to say of a name that is no metric.

use super::catalogue::known_names;
use crate::spec::diagnostic::nearest;

/// So many names are shown: all of them are longer than a screen.
const FEW: usize = 6;

/// What somebody who wrote `name` may have meant.
pub fn hint_for(name: &str) -> String {
    let names = known_names();
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        return format!("did you mean '{near}'?");
    }
    let mut words: Vec<&str> = name.split(['_', '.', ' ', '-']).filter(|w| w.len() > 2).collect();
    // The longest says most.
    words.sort_by_key(|w| std::cmp::Reverse(w.len()));
    let with = |word: &&str| -> Vec<&str> {
        names.iter().map(String::as_str).filter(|n| n.contains(word)).take(FEW).collect()
    };
    match words.iter().map(with).find(|found| !found.is_empty()) {
        Some(few) => format!("names like it are {}", few.join(", ")),
        None => {
            "write for example output_tps, ttft.p95, tpot.p50, e2e.p99 or success_rate".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hint_for;

    #[test]
    fn a_slip_gets_its_name_and_anything_else_a_few() {
        assert_eq!(hint_for("output_tsp"), "did you mean 'output_tps'?");
        let of_a_word = hint_for("mean_joules_spent");
        assert!(
            of_a_word.starts_with("names like it are ") && of_a_word.contains("joules_per"),
            "{of_a_word}"
        );
        assert!(hint_for("qq").starts_with("write for example"));
        assert!(hint_for("zzz_tps_per_zzz").len() < 200);
    }
}

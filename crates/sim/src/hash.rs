//! Seeded draws that depend on *what* is drawn for, never on the order of drawing.
//!
//! A stream of random numbers would make one request's answer depend on how many came before it; a
//! hash of (seed, purpose, subject) does not, so answers and faults repeat under any concurrency.

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of `subject` for one `purpose` under `seed`.
pub(crate) const fn draw(seed: u64, purpose: u64, subject: u64) -> u64 {
    mix(mix(mix(seed) ^ purpose) ^ subject)
}

/// FNV-1a over bytes, for texts.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// A number in [0, 1) from the upper 53 bits of `hash`.
pub(crate) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_subjects_is_drawn_about_that_often() {
        let hits = (0..10_000).filter(|n| unit(draw(7, 1, *n)) < 0.3).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
    }

    #[test]
    fn purpose_seed_and_subject_all_matter() {
        let base = draw(1, 2, 3);
        assert!([draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)].iter().all(|other| *other != base));
    }
}

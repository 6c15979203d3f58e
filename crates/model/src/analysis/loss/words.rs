//! A loss in sentences.

use super::{Loss, Share};
use crate::analysis::doubt::percent;
use crate::analysis::verdict::times;
use crate::units::significant;

/// Smaller shares are in the table and not in the sentence.
const TOLD: f64 = 0.01;
/// A rest of this size is worth a sentence of its own.
const UNEXPLAINED: f64 = 0.05;

pub(super) fn text(loss: &Loss) -> String {
    let head = format!(
        "{} gave {} of {} output tokens/s that {} times {} would be",
        loss.deployment,
        significant(loss.measured_tps),
        significant(loss.ideal_tps),
        times(loss.size),
        loss.baseline,
    );
    let told = |s: &&Share| s.share >= TOLD;
    let shares: Vec<String> = loss.shares.iter().filter(told).map(of_share).collect();
    let gain = match loss.gained() >= TOLD && loss.lost >= TOLD {
        true => format!("; {} was gained elsewhere", percent(loss.gained())),
        false => String::new(),
    };
    let lost = match loss.lost > 0.0 {
        true => format!(". {} was lost", percent(loss.lost)),
        false => format!(", {} more", percent(-loss.lost)),
    };
    // Where nothing was lost in all, what some stage lost is in the table.
    let is_told = loss.lost >= TOLD && !shares.is_empty();
    let to = if is_told { format!(": {}", shares.join("; ")) } else { String::new() };
    let rest: f64 =
        loss.shares.iter().filter(|s| s.cause.is_rest()).map(|s| s.share.max(0.0)).sum();
    let unexplained = match rest >= UNEXPLAINED {
        true => format!(
            " Of that {} of the ideal is a stage and no cause: nothing that was read explains it.",
            percent(rest)
        ),
        false => String::new(),
    };
    let unread = match loss.unread.is_empty() {
        true => String::new(),
        false => format!(" Not read: {}.", loss.unread.join("; ")),
    };
    format!("{head}{lost}{to}{gain}.{unexplained}{unread}")
}

fn of_share(share: &Share) -> String {
    format!("{} to {} ({})", percent(share.share), share.cause.label(), share.evidence)
}

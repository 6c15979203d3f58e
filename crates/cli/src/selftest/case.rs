//! The cases: which server, which load.

use super::server::{ServerSpec, Stall};
use scalebeam_model::arrival::ArrivalKind;
use scalebeam_model::driver::LoadShape;
use scalebeam_model::units::Nanos;

/// One case of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    /// Its name in tables and on the command line.
    pub(crate) name: String,
    /// Streams at once; of an open loop, connections at the beginning.
    pub(crate) streams: u32,
    /// Requests in all.
    pub(crate) requests: u64,
    /// Requests a second of an open loop.
    pub(crate) rate_rps: Option<f64>,
    /// The server.
    pub(crate) server: ServerSpec,
    /// The raw reader runs beside the load client.
    pub(crate) has_raw: bool,
}

const SEED: u64 = 0x5ca1_eb3a;

fn server(ttft_ms: u64, itl_ms: u64, tokens: u32) -> ServerSpec {
    ServerSpec {
        tokens,
        ttft: Nanos::from_millis(ttft_ms),
        ttft_spread: 0.0,
        itl: Nanos::from_millis(itl_ms),
        itl_jitter: 0.0,
        early_role: false,
        stall: None,
        tls: false,
        seed: SEED,
    }
}

impl Case {
    /// Waves of `streams` requests in a closed loop.
    fn closed(name: &str, streams: u32, requests: u64, server: ServerSpec) -> Self {
        Self { name: name.to_owned(), streams, requests, rate_rps: None, server, has_raw: true }
    }

    fn open(name: &str, rate_rps: f64, requests: u64, server: ServerSpec) -> Self {
        Self { rate_rps: Some(rate_rps), ..Self::closed(name, 64, requests, server) }
    }

    fn spread(mut self, share: f64) -> Self {
        self.server.ttft_spread = share;
        self
    }

    fn alone(mut self) -> Self {
        self.has_raw = false;
        self
    }

    /// The load, for the driver.
    pub(crate) fn shape(&self) -> LoadShape {
        match self.rate_rps {
            None => LoadShape::closed(self.streams),
            Some(rate_rps) => LoadShape::Open {
                arrival: ArrivalKind::Constant,
                rate_rps: rate_rps.into(),
                seed: SEED,
                max_in_flight: None,
            },
        }
    }

    /// About how long it lasts: the waves of a closed loop, or the schedule of an open one and its last answer.
    pub(crate) fn lasts(&self) -> Nanos {
        let ServerSpec { ttft, ttft_spread, itl, tokens, stall, .. } = &self.server;
        let first = ttft.as_secs_f64() * (1.0 + ttft_spread);
        let answer = first + itl.as_secs_f64() * f64::from(*tokens);
        let load = match self.rate_rps {
            None => answer * self.requests.div_ceil(u64::from(self.streams).max(1)) as f64,
            Some(rate) => self.requests as f64 / rate + answer,
        };
        Nanos::from_secs_f64(load) + stall.map_or(Nanos::ZERO, |stall| stall.lasts)
    }

    /// Connections that may be open at once: of an open loop, all that can come in while nothing is
    /// answered.
    pub(crate) fn sockets(&self) -> u64 {
        if self.rate_rps.is_some() { self.requests.min(10_000) } else { u64::from(self.streams) }
    }
}

/// Tokens a second that a case of [`paced`] asks for at most: what a small machine can serve and read.
pub(crate) const TOKENS_A_SECOND: u64 = 25_600;

/// A case that lasts about a second a wave: `streams` of up to 100 tokens/s, not in lockstep.
pub(crate) fn paced(streams: u32, waves: u64) -> Case {
    let itl_ms = (u64::from(streams) * 1000).div_ceil(TOKENS_A_SECOND).max(10);
    let tokens = u32::try_from((1000 / itl_ms).clamp(5, 100)).unwrap_or(100);
    let requests = u64::from(streams) * waves;
    let name = format!("{streams} streams");
    Case::closed(&name, streams, requests, server(50, itl_ms, tokens)).spread(0.5)
}

/// An open loop of `seconds` seconds at 500 requests a second.
pub(crate) fn open_loop(seconds: u64) -> Case {
    Case::open("500 req/s", 500.0, 500 * seconds, server(20, 5, 16))
}

/// An open loop of about `seconds` seconds at `rate_rps` requests a second, of ten at least.
pub(crate) fn open_at(rate_rps: f64, seconds: u64) -> Case {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive rate; `as` saturates"
    )]
    let requests = (rate_rps * seconds as f64) as u64;
    let rate_rps = rate_rps.max(10.0);
    Case::open(&format!("{rate_rps} req/s"), rate_rps, requests.max(10), server(20, 5, 16))
}

/// Everything that the journal's table has. The shapes are those at which other tools were measured.
pub(crate) fn full() -> Vec<Case> {
    let mut early_role = Case::closed("early-role-8", 8, 64, server(50, 10, 32)).alone();
    early_role.server.early_role = true;
    let mut tls = Case::closed("tls-256", 256, 1_024, server(50, 10, 200)).spread(0.5).alone();
    tls.server.tls = true;
    let mut stall = Case::open("stall-500rps", 500.0, 2_500, server(20, 5, 16));
    stall.server.stall = Some(Stall { after: Nanos::from_secs(2), lasts: Nanos::from_secs(1) });
    let mut all = vec![
        Case::closed("flat-out-64", 64, 2_000, server(0, 0, 128)),
        Case::closed("paced-256", 256, 2_560, server(50, 10, 200)).spread(0.5),
        Case::closed("paced-1000", 1_000, 2_000, server(100, 20, 100)).spread(0.5),
        // All streams answer at the same instants, so the rhythm of the tokens is that of the requests, and
        // each reader has its own.
        Case::closed("lockstep-1000", 1_000, 2_000, server(100, 20, 100)),
        Case::closed("burst-4000", 4_000, 4_000, server(100, 20, 100)),
        Case::open("open-500rps", 500.0, 10_000, server(20, 5, 16)),
        stall,
        early_role,
        tls,
        Case::closed("hold-9000", 9_000, 9_000, server(100, 200, 50)),
        Case::closed("hold-10000", 10_000, 10_000, server(100, 200, 50)),
        Case::closed("launch", 1, 1, server(1, 1, 2)),
    ];
    all.extend([1_u32, 10, 100, 500, 1_000].map(|n| {
        let requests = u64::from(n) * 2;
        Case::closed(&format!("claims-{n}"), n, requests, server(50, 10, 100))
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_case_never_asks_for_more_than_a_small_machine_has() {
        for streams in [1, 64, 256, 257, 1_000, 4_000, 10_000] {
            let case = paced(streams, 2);
            let itl = case.server.itl.as_secs_f64();
            assert!(f64::from(streams) / itl <= TOKENS_A_SECOND as f64, "{case:?}");
            assert!(case.server.tokens >= 5 && case.requests == u64::from(streams) * 2);
        }
        let case = paced(256, 1);
        assert_eq!((case.server.itl, case.server.tokens), (Nanos::from_millis(10), 100));
    }

    #[test]
    fn a_case_lasts_as_long_as_its_waves_or_its_schedule() {
        let lasts = |case: &Case| (case.lasts().as_secs_f64() * 1e3).round();
        let closed = Case::closed("x", 4, 9, server(100, 10, 20));
        assert!((lasts(&closed) - 900.0).abs() < 1.0, "three waves of 0.3 s: {closed:?}");
        let mut open = Case::open("x", 10.0, 50, server(100, 10, 20)).spread(0.5);
        assert!((lasts(&open) - 5350.0).abs() < 1.0, "{open:?}");
        open.server.stall = Some(Stall { after: Nanos::ZERO, lasts: Nanos::from_secs(1) });
        assert!((lasts(&open) - 6350.0).abs() < 1.0, "{open:?}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = full().into_iter().map(|c| c.name).collect();
        let n = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), n);
    }
}

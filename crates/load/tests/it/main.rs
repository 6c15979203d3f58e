//! The load client against real sockets: a truth server that shares no code with it, dead ports, and
//! small servers that misbehave in ways that no honest one does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

mod behaviours;
mod control;
mod families;
mod http2;
mod sessions;
mod support;
mod timing;
mod tls;

//! `serve`: the emulated engine at wall speed.

use super::span;
use crate::args::{Cli, Command, ContentArg, FaultArgs, ServeArgs, TimingArg};
use crate::clock::WallClock;
use crate::exit::{Failure, Status, chain};
use crate::{interrupt, printer};
use clap::Parser;
use scalebeam_model::units::Nanos;
use scalebeam_sim::config::{EmulatedConfig, Timing};
use scalebeam_sim::serve::{
    ContentField, Faults, Interrupt, Interruption, RoleChunk, ServeConfig, ServeError, Server,
    Stall, StatusFault,
};
use std::net::SocketAddr;

pub(super) fn run(args: &ServeArgs) -> Result<Status, Failure> {
    let config = config(args)?;
    super::runtime(1)?.block_on(async {
        let (_, asked) = interrupt::watch()?;
        let server = Server::bind(config, WallClock::shared()).map_err(failure)?;
        printer::data(&format!("listening on http://{}", server.local_addr()));
        server.run(interrupt::reached(&asked, interrupt::Asked::Once)).await.map_err(failure)
    })?;
    Ok(Status::Ok)
}

fn failure(error: ServeError) -> Failure {
    let text = chain(&error);
    match error {
        ServeError::Config(_) | ServeError::Faults(_) => Failure::usage(text),
        ServeError::Bind { address, .. } => Failure::deployment(text)
            .hint(format!("choose another port than {} with --port", address.port())),
        _ => Failure::internal(text),
    }
}

fn config(args: &ServeArgs) -> Result<ServeConfig, Failure> {
    let mut model_names = args.served_model_name.clone();
    if !model_names.is_empty() {
        model_names.push(args.model.clone());
    }
    let startup_delay = match &args.startup_delay {
        Some(text) => span("--startup-delay", text)?,
        None => Nanos::ZERO,
    };
    Ok(ServeConfig {
        bind: SocketAddr::new(args.host, args.port),
        model_names,
        engine: engine(args)?,
        faults: faults(&args.faults)?,
        startup_delay,
        truth_log: args.truth_log.clone(),
    })
}

/// What a planned `serve` emulates, by the words behind the program's name; nothing where they are another command's.
pub(crate) fn emulated(args: &[String]) -> Option<EmulatedConfig> {
    let words = std::iter::once("scalebeam").chain(args.iter().map(String::as_str));
    match Cli::try_parse_from(words).ok()?.command {
        Command::Serve(args) => engine(&args).ok(),
        _ => None,
    }
}

fn engine(args: &ServeArgs) -> Result<EmulatedConfig, Failure> {
    Ok(EmulatedConfig {
        model: args.model.clone(),
        gpu: args.gpu.clone(),
        tp: args.tp,
        pp: args.pp,
        nodes: args.nodes,
        inter_node_gbps: args.inter_node_gbps,
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        kv_tokens: args.kv_tokens,
        max_model_len: args.max_model_len,
        timing: timing(args)?,
        speed: args.speed,
        seed: args.seed,
        ..EmulatedConfig::default()
    })
}

fn timing(args: &ServeArgs) -> Result<Timing, Failure> {
    let asks_fixed = args.ttft.is_some() || args.itl.is_some() || args.slots.is_some();
    let chosen =
        args.timing.unwrap_or(if asks_fixed { TimingArg::Fixed } else { TimingArg::Roofline });
    if chosen == TimingArg::Roofline {
        return match asks_fixed {
            true => Err(Failure::usage("--ttft, --itl and --slots belong to --timing fixed")),
            false => Ok(Timing::Roofline),
        };
    }
    let or = |flag, text: &Option<String>, default| match text {
        Some(text) => span(flag, text),
        None => Ok(default),
    };
    Ok(Timing::Fixed {
        ttft: or("--ttft", &args.ttft, Nanos::from_millis(50))?,
        itl: or("--itl", &args.itl, Nanos::from_millis(10))?,
        slots: args.slots,
    })
}

fn faults(args: &FaultArgs) -> Result<Faults, Failure> {
    let role = match &args.role_after {
        Some(text) => RoleChunk::After(span("--role-after", text)?),
        None => RoleChunk::WithFirstToken,
    };
    Ok(Faults {
        tokens_per_chunk: args.tokens_per_chunk,
        role,
        content: match args.content {
            ContentArg::Content => ContentField::Content,
            ContentArg::Reasoning => ContentField::Reasoning,
            ContentArg::ToolCalls => ContentField::ToolCalls,
        },
        omit_usage: args.omit_usage,
        omit_done: args.omit_done,
        crlf: args.crlf,
        no_space: args.no_space,
        heartbeat_every: 0,
        split_bytes: args.split_bytes,
        empty_output: args.empty_output,
        status: args.fail_status.as_deref().map(status).transpose()?,
        interrupt: args.interrupt.as_deref().map(interruption).transpose()?,
        stall: args.stall.as_deref().map(stall).transpose()?,
    })
}

fn wrong(flag: &str, text: &str, form: &str) -> Failure {
    Failure::usage(format!("{flag}: '{text}' is not of the form {form}"))
}

fn status(text: &str) -> Result<StatusFault, Failure> {
    let read = || {
        let (status, share) = text.split_once(':')?;
        Some(StatusFault { status: status.parse().ok()?, share: share.parse().ok()? })
    };
    read().ok_or_else(|| wrong("--fail-status", text, "429:0.05"))
}

fn three(text: &str) -> Option<(&str, u64, f64)> {
    let mut parts = text.split(':');
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(())?;
    Some((a, b.parse().ok()?, c.parse().ok()?))
}

fn interruption(text: &str) -> Result<Interrupt, Failure> {
    let read = || {
        let (how, after_tokens, share) = three(text)?;
        let how = match how {
            "reset" => Interruption::Reset,
            "close" => Interruption::Close,
            "end" => Interruption::End,
            "error" => Interruption::Error,
            _ => return None,
        };
        Some(Interrupt { how, after_tokens, share })
    };
    read().ok_or_else(|| wrong("--interrupt", text, "reset:3:0.05 (reset, close, end or error)"))
}

fn stall(text: &str) -> Result<Stall, Failure> {
    let (span_text, after_tokens, share) =
        three(text).ok_or_else(|| wrong("--stall", text, "2s:3:0.05"))?;
    Ok(Stall { span: span("--stall", span_text)?, after_tokens, share })
}

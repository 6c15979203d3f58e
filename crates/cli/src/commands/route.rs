//! `route`: one entry in front of prefill and decode workers.

use crate::args::RouteArgs;
use crate::clock::WallClock;
use crate::exit::{Failure, Status, chain};
use crate::{interrupt, printer};
use scalebeam_router::{Router, RouterConfig, RouterError};
use std::net::SocketAddr;
use tokio::runtime::{Builder, Runtime};

pub(super) fn run(args: &RouteArgs) -> Result<Status, Failure> {
    let config = RouterConfig {
        bind: SocketAddr::new(args.host, args.port),
        prefill: args.prefill.clone(),
        decode: args.decode.clone(),
    };
    runtime(args.threads)?.block_on(async {
        let (_, asked) = interrupt::watch()
            .map_err(|e| Failure::internal(format!("cannot watch for signals: {e}")))?;
        let router = Router::bind(&config, WallClock::shared()).map_err(|e| failure(&e))?;
        printer::data(&format!("listening on http://{}", router.local_addr()));
        router.run(interrupt::reached(&asked, interrupt::Asked::Once)).await;
        Ok(Status::Ok)
    })
}

/// One thread needs no other to be woken on the way of a token.
fn runtime(threads: u16) -> Result<Runtime, Failure> {
    let mut builder =
        if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(usize::from(threads));
    }
    let built = builder.enable_all().build();
    built.map_err(|e| Failure::internal(format!("cannot start a runtime: {e}")))
}

fn failure(error: &RouterError) -> Failure {
    let text = chain(error);
    match error {
        RouterError::Url(_) | RouterError::NoWorker(_) => Failure::usage(text),
        RouterError::Bind { address, .. } => Failure::deployment(text)
            .hint(format!("choose another port than {} with --port", address.port())),
    }
}

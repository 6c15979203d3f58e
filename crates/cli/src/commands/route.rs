//! `route`: one entry in front of prefill and decode workers.

use crate::args::RouteArgs;
use crate::clock::WallClock;
use crate::exit::{Failure, Status, chain};
use crate::{interrupt, printer};
use scalebeam_router::{Router, RouterConfig, RouterError};
use std::net::SocketAddr;

pub(super) fn run(args: &RouteArgs) -> Result<Status, Failure> {
    let config = RouterConfig {
        bind: SocketAddr::new(args.host, args.port),
        prefill: args.prefill.clone(),
        decode: args.decode.clone(),
    };
    super::runtime(args.threads)?.block_on(async {
        let (_, asked) = interrupt::watch()?;
        let router = Router::bind(&config, WallClock::shared()).map_err(|e| failure(&e))?;
        printer::data(&format!("listening on http://{}", router.local_addr()));
        router.run(interrupt::reached(&asked, interrupt::Asked::Once)).await;
        Ok(Status::Ok)
    })
}

fn failure(error: &RouterError) -> Failure {
    let text = chain(error);
    match error {
        RouterError::Url(_) | RouterError::NoWorker(_) => Failure::usage(text),
        RouterError::Bind { address, .. } => Failure::deployment(text)
            .hint(format!("choose another port than {} with --port", address.port())),
    }
}

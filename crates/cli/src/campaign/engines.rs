//! The engines' own pages of metrics while a trial is measured.

use crate::experiment::Loaded;
use scalebeam_fleet::MetricsPages;
use scalebeam_model::clock::Clock;
use scalebeam_model::plan::{DeploymentPlan, MetricsTarget};
use scalebeam_model::units::Nanos;
use scalebeam_telemetry::scrape::{Pages, Scraped, Scraper, Scraping};
use std::sync::Arc;
use tokio::runtime::Handle;

/// What a deployment's engines are asked with.
#[derive(Clone)]
pub(super) struct Engines {
    /// Absent where the file wants none of it.
    pages: Option<Arc<OfDeployment>>,
    targets: Vec<MetricsTarget>,
    interval: Nanos,
    clock: Arc<dyn Clock>,
    runtime: Handle,
}

#[derive(Debug)]
struct OfDeployment(MetricsPages);

impl Pages for OfDeployment {
    async fn read(&self, base_url: &str) -> Option<String> {
        self.0.read(base_url).await
    }
}

impl Engines {
    pub(super) fn new(
        loaded: &Loaded,
        deployment: &DeploymentPlan,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let asked = &loaded.plan.telemetry;
        // A key that is not there has stopped the run before.
        let pages =
            asked.engine.then(|| MetricsPages::new(deployment, &loaded.base).ok()).flatten();
        Self {
            pages: pages.map(|pages| Arc::new(OfDeployment(pages))),
            targets: deployment.metrics_targets(),
            interval: asked.interval,
            clock: Arc::clone(clock),
            runtime: Handle::current(),
        }
    }

    /// Reads what they have counted so far, and begins to look at them. Blocks.
    pub(super) fn begin(&self) -> Option<Watched> {
        let scraper = Scraper {
            pages: Arc::clone(self.pages.as_ref()?),
            clock: Arc::clone(&self.clock),
            interval: self.interval,
            targets: self.targets.clone(),
        };
        let scraping = self.runtime.block_on(scraper.begin());
        Some(Watched { scraping, runtime: self.runtime.clone() })
    }
}

/// Engines that are looked at, until this is ended or dropped.
pub(super) struct Watched {
    scraping: Scraping<OfDeployment>,
    runtime: Handle,
}

impl Watched {
    /// Reads what they have counted by now. Blocks.
    pub(super) fn end(self) -> Option<Scraped> {
        self.runtime.block_on(self.scraping.end())
    }
}

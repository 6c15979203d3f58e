//! What is behind a router: whether each instance serves, and whether the router knows them.
//!
//! **Invariants.** A router answers its health with no worker, and a first request with one of many. So each
//! instance is asked at its own address, and the router, where it tells, for how many it counts as well.

use super::{Doing, Question, Wait, base};
use crate::error::FleetError;
use scalebeam_model::plan::EntryPlan;
use std::sync::Mutex;

impl Wait<'_> {
    /// Asks each of `servers` for what their engine shows once it serves.
    pub(super) async fn servers(
        &self,
        servers: &[EntryPlan],
        path: Option<&str>,
        model: Option<&str>,
        doing: &Mutex<Doing>,
    ) -> Result<Vec<String>, FleetError> {
        let mut notes = Vec::new();
        for server in servers {
            if let Some(path) = path {
                self.http(server, path, doing).await?;
            }
            if let Some(model) = model {
                notes.extend(self.model_listed(server, model, doing).await?);
            }
        }
        Ok(notes)
    }

    /// Waits until the router lists `expected` workers that are well.
    pub(super) async fn workers(
        &self,
        path: &str,
        expected: u32,
        doing: &Mutex<Doing>,
    ) -> Result<(), FleetError> {
        for entry in &self.plan.entries {
            let url = format!("{}{path}", base(entry));
            let what = format!("waiting for the router to know {expected} workers at {url}");
            self.until_pass(&what, &Question::Workers { url, expected }, doing).await?;
        }
        Ok(())
    }
}

//! Whether each data-parallel rank answers, and not only the first that is free.
//!
//! **Invariants.** A server answers its health and a first request while a rank behind it hangs. Each rank
//! is therefore asked by number. A server that does not look at the number answers all the same: then this
//! says no more than the completion before it.

use super::{Doing, Question, Wait};
use crate::error::FleetError;
use http::HeaderName;
use scalebeam_model::plan::{Gate, RankedServer};
use scalebeam_model::workload::Api;
use std::sync::Mutex;

impl Wait<'_> {
    /// Has a real answer of every rank of `servers`, each asked for in `header`.
    pub(super) async fn ranks(
        &self,
        header: &str,
        servers: &[RankedServer],
        doing: &Mutex<Doing>,
    ) -> Result<Vec<String>, FleetError> {
        let header = HeaderName::try_from(header).map_err(|_| FleetError::Unsupported {
            deployment: self.plan.name.clone(),
            reason: format!("'{header}' is not the name of a header"),
        })?;
        let mut notes = Vec::new();
        for RankedServer { url, ranks } in servers {
            for rank in 0..*ranks {
                let what = format!("{rank} of {ranks} data-parallel ranks behind {url} answered");
                let client = Box::new(self.client.with_header(header.clone(), rank));
                let question = Question::Rank { client, base: url, api: self.measured_api() };
                notes.extend(self.until_pass(&what, &question, doing).await?);
            }
        }
        // What is odd about one is odd about all.
        notes.dedup();
        Ok(notes)
    }

    /// A family that is measured; none where chat or text will do.
    fn measured_api(&self) -> Option<Api> {
        let apis = self.plan.ready.gates.iter().find_map(|gate| match gate {
            Gate::Completion { apis } => Some(apis),
            _ => None,
        });
        apis?.first().copied()
    }
}

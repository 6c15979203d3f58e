//! The pages on which engines count what they do.

use crate::error::FleetError;
use crate::http::{Client, check_url};
use crate::launch::manner;
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_model::telemetry::PagePlan;
use std::path::Path;

/// Reads pages of metrics, as the deployment's gates are asked: with its key, headers and certificates.
#[derive(Debug)]
pub struct MetricsPages(Client);

impl MetricsPages {
    /// Of `deployment`; relative paths start at `base`.
    ///
    /// # Errors
    /// When a variable that its plan names is not set.
    pub fn new(deployment: &DeploymentPlan, base: &Path) -> Result<Self, FleetError> {
        Client::new(deployment, base, manner(deployment)).map(Self)
    }

    /// `/metrics` beside the API at `base_url`; `None` where there is none. Many servers have no such page, so
    /// that it is missing is no error. Waits as long as the server does.
    pub async fn read(&self, base_url: &str) -> Option<String> {
        let answer = self.0.get(&format!("{}/metrics", root(base_url))).await.ok()?;
        (answer.status == 200 && !answer.is_html()).then_some(answer.body)
    }
}

/// Reads one page of another program.
#[derive(Debug)]
pub struct Page {
    client: Client,
    url: String,
}

impl Page {
    /// As `plan` says it; relative paths start at `base`.
    ///
    /// # Errors
    /// When the address cannot be asked, or a variable that the plan names is not set.
    pub fn new(plan: &PagePlan, base: &Path) -> Result<Self, FleetError> {
        let (url, _) = plan.url.split_once('#').unwrap_or((&plan.url, ""));
        check_url(url)?;
        Ok(Self { client: Client::of_page(plan, base)?, url: url.to_owned() })
    }

    /// What it says now.
    ///
    /// # Errors
    /// Says why it says nothing. Waits as long as the server does.
    pub async fn read(&self) -> Result<String, String> {
        self.read_below("").await
    }

    /// What the page at `path` below its address says, as [`Page::read`].
    ///
    /// # Errors
    /// Says why it says nothing.
    pub async fn read_below(&self, path: &str) -> Result<String, String> {
        let url = match path.is_empty() {
            true => self.url.clone(),
            false => format!("{}{path}", self.url.trim_end_matches('/')),
        };
        let answer = self.client.get(&url).await.map_err(|e| e.to_string())?;
        match answer.status {
            200 => Ok(answer.body),
            401 | 403 => Err(format!("{}: check user and password", answer.summary())),
            _ => Err(answer.summary()),
        }
    }
}

/// Engines have the page beside their API, not in it.
fn root(base_url: &str) -> &str {
    let url = base_url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_beside_the_api() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            assert_eq!(root(url), "http://h:1");
        }
        assert_eq!(root("http://h:1/team"), "http://h:1/team");
    }
}

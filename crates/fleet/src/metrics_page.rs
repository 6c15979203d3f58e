//! The page on which an engine counts what it does.

use crate::http::Client;
use crate::launch::manner;
use scalebeam_model::plan::DeploymentPlan;
use std::path::Path;
use std::time::Duration;

/// Longer than an idle engine takes to write its page; nothing is measured meanwhile, and all wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// `/metrics` of the entry at `base_url`, asked as the deployment's gates are; `None` where there is none. Many
/// servers have no such page, so that it is missing is no error. Relative paths start at `base`.
pub async fn metrics_page(
    deployment: &DeploymentPlan,
    base: &Path,
    base_url: &str,
) -> Option<String> {
    let client = Client::new(deployment, base, manner(deployment)).ok()?;
    let url = format!("{}/metrics", root(base_url));
    let answer = tokio::time::timeout(PATIENCE, client.get(&url)).await.ok()?.ok()?;
    (answer.status == 200 && !answer.is_html()).then_some(answer.body)
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

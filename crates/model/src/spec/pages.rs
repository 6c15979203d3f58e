//! Pages of other programs that are read while the load runs: `[telemetry]` names them by host.

use super::{Experiment, Problem, TelemetrySpec};
use crate::telemetry::usage::THIS_MACHINE;
use crate::telemetry::{PageKind, PagePlan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A page: its address, or a table where asking needs more.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PageSpec {
    /// The address alone.
    Url(String),
    /// The address, and who asks.
    Access(PageAccess),
}

/// A page, and what it takes to be given it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageAccess {
    /// Its address.
    pub url: String,
    /// Who asks, by name and password (HTTP Basic).
    #[serde(default)]
    pub user: Option<String>,
    /// Environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// Request headers whose values are in environment variables: `{ "X-Auth-Token" = "BMC_TOKEN" }`.
    #[serde(default)]
    pub headers_env: BTreeMap<String, String>,
    /// PEM file of certificates that are trusted beside the system's, relative to the experiment file.
    #[serde(default)]
    pub ca_file: Option<String>,
}

impl PageSpec {
    fn access(&self) -> PageAccess {
        match self {
            Self::Url(url) => PageAccess { url: url.clone(), ..PageAccess::default() },
            Self::Access(access) => access.clone(),
        }
    }
}

impl TelemetrySpec {
    /// Every page that the file names, by kind and host.
    fn each_page(&self) -> impl Iterator<Item = (PageKind, &String, PageAccess)> {
        let kinds = [
            (PageKind::Redfish, &self.redfish),
            (PageKind::Dcgm, &self.dcgm),
            (PageKind::NodeExporter, &self.node_exporter),
        ];
        kinds.into_iter().flat_map(|(kind, pages)| {
            pages.iter().map(move |(host, page)| (kind, host, page.access()))
        })
    }

    /// Whether exporters or servers tell of hosts.
    pub(crate) fn names_pages(&self) -> bool {
        !(self.prometheus.is_empty() && self.dcgm.is_empty() && self.node_exporter.is_empty())
    }

    /// The same, as a plan has them, and the servers that watch all hosts.
    pub(super) fn page_plans(&self) -> Vec<PagePlan> {
        let servers = self.prometheus.iter().map(|server| {
            access_plan(PageKind::Prometheus, THIS_MACHINE.to_owned(), server.access())
        });
        let of_hosts = self.each_page().map(|(kind, host, a)| access_plan(kind, host.clone(), a));
        of_hosts.chain(servers).collect()
    }
}

fn access_plan(kind: PageKind, host: String, access: PageAccess) -> PagePlan {
    PagePlan {
        host,
        kind,
        url: access.url,
        user: access.user,
        password_env: access.password_env,
        headers_env: access.headers_env,
        ca_file: access.ca_file,
    }
}

/// Pages of hosts that nobody knows, addresses that are none, half a credential.
pub(super) fn check(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let pages = experiment.telemetry.iter().flat_map(TelemetrySpec::each_page);
    for (kind, host, access) in pages {
        let path = format!("telemetry.{}.{host}", kind.name());
        let is_known = host == THIS_MACHINE || experiment.host.contains_key(host);
        if !is_known {
            let why = format!("there is no host '{host}'");
            let hint = format!("name a [host.NAME] of this file, or \"{THIS_MACHINE}\"");
            problems.push(Problem::new(&path, why, hint));
        }
        check_access(&path, &access, example(kind), problems);
    }
    let servers = experiment.telemetry.iter().flat_map(|t| t.prometheus.iter().enumerate());
    for (i, server) in servers {
        let path = format!("telemetry.prometheus[{i}]");
        check_access(&path, &server.access(), example(PageKind::Prometheus), problems);
    }
}

fn check_access(path: &str, access: &PageAccess, example: &str, problems: &mut Vec<Problem>) {
    if !["http://", "https://"].iter().any(|scheme| access.url.starts_with(scheme)) {
        let why = format!("'{}' is no address of a page", access.url);
        problems.push(Problem::new(format!("{path}.url"), why, example));
    }
    if access.user.is_some() != access.password_env.is_some() {
        let why = "user and password_env go together".to_owned();
        let hint = "user = \"reader\", password_env = \"BMC_PASSWORD\": the password itself is never written";
        problems.push(Problem::new(path, why, hint));
    }
}

/// An address, so that nobody has to look it up.
const fn example(kind: PageKind) -> &'static str {
    match kind {
        PageKind::Redfish => "url = \"https://BMC/redfish/v1/Chassis/1/Power\"",
        PageKind::Dcgm => "\"http://HOST:9400/metrics\"",
        PageKind::NodeExporter => "\"http://HOST:9100/metrics\"",
        PageKind::Prometheus => "prometheus = [\"http://SERVER:9090\"]",
    }
}

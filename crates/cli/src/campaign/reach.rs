//! Where requests go, and with which headers. Secrets are read from the environment by name, when they
//! are needed, and are nowhere else.

use crate::clock::WallClock;
use crate::exit::Failure;
use crate::experiment::Loaded;
use scalebeam_load::{Endpoint, LoadError, Secret, Target, probe};
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_model::units::Nanos;
use scalebeam_model::workload::Api;
use std::collections::BTreeMap;
use std::path::Path;

fn from_env(what: &str, name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(Failure::usage(format!("{what}: the environment variable {name} is not set"))
            .hint(format!("export {name}=.. before you start scalebeam"))),
    }
}

/// What a deployment's requests carry and no file may.
#[derive(Debug)]
pub(super) struct Secrets {
    api_key: Option<Secret>,
    headers: Vec<(String, String)>,
}

/// Reads the secrets of a deployment's requests.
pub(super) fn secrets(d: &DeploymentPlan) -> Result<Secrets, Failure> {
    let what = || format!("api_key_env of '{}'", d.name);
    let key = d.api_key_env.as_ref().map(|name| from_env(&what(), name)).transpose()?;
    Ok(Secrets { api_key: key.map(Secret::new), headers: read_headers(&d.headers_env)? })
}

fn read_headers(headers: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, Failure> {
    let read = |(name, env): (&String, &String)| {
        Ok((name.clone(), from_env(&format!("header {name}"), env)?))
    };
    headers.iter().map(read).collect()
}

/// The endpoint of `deployment` for requests of family `api`.
pub(super) fn endpoint(
    loaded: &Loaded,
    deployment: &DeploymentPlan,
    api: Api,
) -> Result<Endpoint, Failure> {
    let Secrets { api_key, headers } = secrets(deployment)?;
    Ok(Endpoint {
        targets: deployment.entries.iter().map(|e| Target { base_url: e.url.clone() }).collect(),
        api,
        model: deployment.served_model.clone(),
        headers,
        api_key,
        ca_file: deployment.ca_file.as_ref().map(|file| loaded.base.join(file)),
        http: deployment.http,
        sources: loaded.plan.sources.clone(),
    })
}

/// The first model that the endpoint lists.
pub(crate) fn first_model(
    url: &str,
    api: Api,
    api_key_env: Option<&str>,
    headers_env: &BTreeMap<String, String>,
    ca_file: Option<&Path>,
) -> Result<String, Failure> {
    let mut headers = read_headers(headers_env)?;
    if let Some(name) = api_key_env {
        let key = from_env("--api-key-env", name)?;
        headers.push(match api {
            Api::Messages => ("x-api-key".into(), key),
            _ => ("authorization".into(), format!("Bearer {key}")),
        });
    }
    let names_version = headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("anthropic-version"));
    if api == Api::Messages && !names_version {
        headers.push(("anthropic-version".into(), "2023-06-01".into()));
    }
    let base = url.trim_end_matches('/').trim_end_matches("/v1");
    let clock = WallClock::shared();
    let wait = Nanos::from_secs(30);
    let give = "give the model's name with --model";
    let (status, body) =
        probe::get(&clock, base, "/v1/models", &headers, ca_file, wait).map_err(|e| match e {
            LoadError::CaFile { .. } => Failure::from(e),
            _ => Failure::from(e).hint(give),
        })?;
    if status != 200 {
        return Err(Failure::deployment(format!("{base}/v1/models answers {status}")).hint(give));
    }
    let listed: serde_json::Value = serde_json::from_slice(&body).map_err(|e| {
        Failure::deployment(format!("{base}/v1/models is not JSON: {e}")).hint(give)
    })?;
    let id = listed["data"][0]["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Failure::deployment(format!("{base}/v1/models lists no model")).hint(give))
}

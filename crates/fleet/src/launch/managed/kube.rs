//! Kubernetes, by the site's own `kubectl`: apply, watch, remove.
//!
//! **Invariants.** Every object and pod of a deployment has a label whose value no other run has, and names
//! made of it, so that removing needs nothing but the claim, also after a kill between applying and
//! recording. What has such a name without the label is somebody else's: nothing is applied over it, and it
//! is never deleted. Removing is done when the objects and their pods are gone. The context and namespace of
//! the claim are those that everything later is asked of, whatever the kubeconfig says by then.

mod client;
mod gateway;
mod kubectl;
mod objects;
mod pods;
mod reach;
mod sight;
#[cfg(test)]
mod tests;

use super::tool::ToolError;
use super::{Ask, End, Look, Removal, errand, gone_within};
use crate::agent::FarHost;
use crate::host::{self, Shell};
use crate::journal::Claim;
use crate::launch::log::last_lines;
use crate::render::client::{BESIDE, JOB};
use crate::render::kube::{INSTANCE, Resource, custom_resources, full_name, plain_resources};
use crate::teardown::Ended;
use kubectl::{Seen, Site};
use objects::Pod;
use pods::Trouble;
use reach::Way;
use scalebeam_model::plan::{DeploymentPlan, EntryPlan, Platform};
use scalebeam_model::telemetry::agent::WatchedPod;
use sight::Sight;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub use client::{InsideClient, InsideEnd, InsideJob, InsideUnknown, LAST_LINE};
pub(super) use kubectl::hint;

/// Beyond the grace of its pods, what a cluster needs to let go of a deployment.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what is being deleted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Words of a claim's scope.
const CONTEXT: &str = "context";
const NAMESPACE: &str = "namespace";

/// What a platform needs beside plain Kubernetes.
#[derive(Debug)]
struct Operator {
    /// The path of its API, and the kinds that must be in it.
    api: &'static str,
    kinds: &'static [&'static str],
    /// What brings that.
    name: &'static str,
}

/// Of platforms that are not Kubernetes: none.
const fn operators(platform: Platform) -> &'static [Operator] {
    match platform {
        Platform::Lws => &[Operator {
            api: "/apis/leaderworkerset.x-k8s.io/v1",
            kinds: &["LeaderWorkerSet"],
            name: "LeaderWorkerSet (the lws controller)",
        }],
        Platform::Kuberay => &[Operator {
            api: "/apis/ray.io/v1",
            kinds: &["RayService"],
            name: "the KubeRay operator",
        }],
        Platform::Dgd => &[Operator {
            api: "/apis/nvidia.com/v1beta1",
            kinds: &["DynamoGraphDeployment"],
            name: "the Dynamo operator",
        }],
        Platform::InferencePool => &[
            Operator {
                api: "/apis/gateway.networking.k8s.io/v1",
                kinds: &["Gateway", "HTTPRoute"],
                name: "the Gateway API with a controller of gateways",
            },
            Operator {
                api: "/apis/inference.networking.k8s.io/v1",
                kinds: &["InferencePool"],
                name: "the Gateway API's inference extension",
            },
        ],
        _ => &[],
    }
}

/// As kubectl is given them.
fn joined(resources: &[Resource]) -> String {
    resources.iter().map(|r| full_name(*r)).collect::<Vec<_>>().join(",")
}

/// Everything that a deployment on `platform` is of, but pods.
fn kinds(platform: Platform) -> String {
    joined(&[custom_resources(platform), plain_resources(platform)].concat())
}

/// Everything that `claim` is of, but pods.
fn kinds_of(claim: &Claim) -> String {
    match claim.is_client {
        true => joined(&[[JOB].as_slice(), BESIDE.as_slice()].concat()),
        false => kinds(claim.platform),
    }
}

/// Where `plan` will be, and that it can be there: the cluster answers, its operators are installed, and what
/// will be brought up can be reached from here.
pub(super) async fn scope(plan: &DeploymentPlan) -> Result<BTreeMap<String, String>, ToolError> {
    let site = Site::find(plan.text(CONTEXT), plan.text(NAMESPACE)).await?;
    // How a gateway is reached is its controller's to say, and known once it is there.
    let has_gateway = plan.platform == Platform::InferencePool;
    if !has_gateway && Way::of(plan.text("expose"), site.is_inside()).is_none() {
        return Err(ToolError::Unfit {
            said: "it would answer inside of its cluster only, and scalebeam runs outside of it"
                .to_owned(),
            hint: reach::WAYS.to_owned(),
        });
    }
    takes(&site, plan.platform).await?;
    Ok(scope_of(site))
}

/// Whether the cluster answers, and has what `platform` needs.
async fn takes(site: &Site, platform: Platform) -> Result<(), ToolError> {
    let operators = operators(platform);
    if operators.is_empty() {
        site.answers().await?;
    }
    for Operator { api, kinds, name } in operators {
        site.has_kinds(api, kinds, name).await?;
    }
    Ok(())
}

fn scope_of(site: Site) -> BTreeMap<String, String> {
    let context = site.context.map(|context| (CONTEXT.to_owned(), context));
    context.into_iter().chain([(NAMESPACE.to_owned(), site.namespace)]).collect()
}

fn site(claim: &Claim) -> Site {
    Site {
        context: claim.scope.get(CONTEXT).cloned(),
        namespace: claim.scope.get(NAMESPACE).cloned().unwrap_or_else(|| "default".to_owned()),
    }
}

/// What finds everything of a claim, and nothing else.
fn selector(claim: &Claim) -> String {
    format!("{INSTANCE}={},app.kubernetes.io/managed-by=scalebeam", claim.name)
}

/// Applies the files of `claim`; where they are, in words.
pub(super) async fn submit(claim: &Claim) -> Result<String, ToolError> {
    let site = site(claim);
    for file in &claim.files {
        let file = Path::new(&claim.run_dir).join(file);
        let file = file.to_string_lossy();
        let is_ours = |labels: &BTreeMap<String, String>| labels.get(INSTANCE) == Some(&claim.name);
        let there = site.named_in(&file).await?;
        if let Some(object) = there.iter().find(|o| !is_ours(&o.metadata.labels)) {
            let (kind, name) = (&object.kind, &object.metadata.name);
            return Err(ToolError::Unfit {
                said: format!(
                    "{kind} {name} is in namespace {} already, and not ours",
                    site.namespace
                ),
                hint: "rename the deployment, or use another namespace in params".to_owned(),
            });
        }
        site.apply(&file, claim).await?;
    }
    Ok(format!("{}/{}", site.namespace, claim.name))
}

/// What has become of it.
pub(super) async fn look(
    claim: &Claim,
    plan: &DeploymentPlan,
    ask: Ask,
) -> Result<Look, ToolError> {
    let site = site(claim);
    let seen = site.see(&kinds(plan.platform), &selector(claim)).await?;
    let whole = match plan.platform {
        Platform::InferencePool => {
            let pods = sight::sight(&gateway::counted(&seen.objects), &seen.pods);
            gateway::before(pods, &seen.objects)
        }
        _ => sight::sight(&seen.objects, &seen.pods),
    };
    Ok(match whole {
        Sight::Absent => Look::Absent,
        Sight::Pending(text) => Look::Pending(format!("pending: {text}")),
        Sight::Blocked(end) => Look::Blocked(pending(end)),
        Sight::GivenUp(end) => Look::Ended(end),
        Sight::Doomed(trouble) => Look::Ended(ended(&site, &trouble).await),
        Sight::Ready(text) if ask == Ask::Runs => Look::Up { entries: Vec::new(), text },
        Sight::Ready(text) => match urls(claim, plan, &site, &seen) {
            Ok(urls) => Look::Up { entries: entries(plan, urls), text },
            Err(Look::Pending(waiting)) => Look::Pending(format!("pending: {text}; {waiting}")),
            Err(Look::Blocked(end)) => Look::Blocked(pending(end)),
            Err(other) => other,
        },
    })
}

fn pending(end: End) -> End {
    End { reason: format!("pending: {}", end.reason), ..end }
}

/// Where what is ready answers.
///
/// # Errors
/// What is seen instead, where that is not known yet, or is nowhere that is reached from here.
fn urls(
    claim: &Claim,
    plan: &DeploymentPlan,
    site: &Site,
    seen: &Seen,
) -> Result<Vec<String>, Look> {
    if plan.platform == Platform::InferencePool {
        let port = reach::port(plan);
        return gateway::address(&seen.objects, plan, port, site.is_inside()).map(|url| vec![url]);
    }
    match Way::of(plan.text("expose"), site.is_inside()) {
        Some(Way::Services) => reach::outside(&seen.objects, &seen.pods).map_err(Look::Pending),
        Some(Way::Names) | None => Ok(reach::inside(claim, plan, &site.namespace, &seen.pods)),
    }
}

/// `urls`, each with the instance that the plan has at its place.
fn entries(plan: &DeploymentPlan, urls: Vec<String>) -> Vec<EntryPlan> {
    let instances = plan.entries.iter().map(|e| e.instance).chain(std::iter::repeat(None));
    urls.into_iter().zip(instances).map(|(url, instance)| EntryPlan { url, instance }).collect()
}

/// A pod's trouble, with the end of the log that tells of it.
async fn ended(site: &Site, trouble: &Trouble) -> End {
    let mut text = trouble.to_string();
    if let Some(container) = &trouble.container {
        // A container that never ran has no log, and its trouble says enough.
        let log = site.log_of(&trouble.pod, container, trouble.restarted).await.unwrap_or_default();
        text.extend(log.lines().map(|line| format!("\n    {line}")));
    }
    End::new(text).hint(trouble.hint)
}

/// Its pods, each by the container that an engine would be in.
pub(super) async fn hosts(claim: &Claim) -> Result<Vec<FarHost>, ToolError> {
    let site = site(claim);
    let host = |pod: Pod| {
        let container = pods::main_container(&pod)?.to_owned();
        let name = pod.metadata.name.clone();
        let watched = WatchedPod {
            node: pod.spec.node_name.clone().unwrap_or_default(),
            container: container.clone(),
            role: pods::works_as(&pod),
        };
        let (context, namespace) = (site.context.clone(), site.namespace.clone());
        let shell = Shell::Pod(host::Pod { context, namespace, name: name.clone(), container });
        Some(FarHost { name, shell, pod: Some(watched) })
    };
    Ok(site.pods(&selector(claim)).await?.into_iter().filter_map(host).collect())
}

/// The last lines of what its pods wrote, each with the name of its pod.
pub(super) async fn log_tail(claim: &Claim, lines: usize) -> Vec<String> {
    let text = site(claim).logs(&selector(claim), lines).await.unwrap_or_default();
    // `lines` of each container.
    last_lines(&text, usize::MAX)
}

/// What there is of `claim`: objects and pods.
pub(super) async fn find(claim: &Claim) -> Result<Vec<String>, ToolError> {
    let (site, selector) = (site(claim), selector(claim));
    match site.names(&kinds_of(claim), &selector).await {
        Err(error) if lacks_kind(&error) => {
            site.names(&known_kinds(&site, claim).await?, &selector).await
        }
        found => found,
    }
}

/// Whether an operator was removed, and with it its kind and all objects of that.
fn lacks_kind(error: &ToolError) -> bool {
    matches!(error, ToolError::Refused { said, .. } if said.contains("doesn't have a resource type"))
}

/// The kinds of the objects of `claim` that the cluster still has.
async fn known_kinds(site: &Site, claim: &Claim) -> Result<String, ToolError> {
    let mut known = Vec::new();
    for resource in custom_resources(claim.platform) {
        match site.names(&full_name(*resource), &selector(claim)).await {
            Err(error) if lacks_kind(&error) => {}
            Err(error) => return Err(error),
            Ok(_) => known.push(*resource),
        }
    }
    known.extend(plain_resources(claim.platform));
    Ok(joined(&known))
}

/// Deletes a Job and waits for its pod: that takes down what it made, and needs its account until then. Nobody will fetch
/// anything of it any more.
async fn end_job(site: &Site, selector: &str, limit: Duration) -> Result<(), ToolError> {
    client::release(site, selector).await;
    let job = full_name(JOB);
    site.delete(&job, selector).await?;
    let is_gone = || async { Ok(site.names(&job, selector).await?.is_empty()) };
    // What does not go is told by the look at everything after it.
    gone_within(limit, LOOK_EVERY, is_gone).await.map(drop)
}

/// Deletes everything of `claim`, and returns when nothing of it is there, or its grace is over.
pub(super) async fn remove(claim: &Claim) -> Result<Vec<Removal>, ToolError> {
    errand::end(claim);
    let (site, selector) = (site(claim), selector(claim));
    let before = find(claim).await?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let limit = claim.grace.to_std().saturating_add(GONE_WITHIN);
    if claim.is_client {
        end_job(&site, &selector, limit).await?;
    }
    match site.delete(&kinds_of(claim), &selector).await {
        Err(error) if lacks_kind(&error) => {
            site.delete(&known_kinds(&site, claim).await?, &selector).await?;
        }
        done => done?,
    }
    let is_gone = || async { Ok(find(claim).await?.is_empty()) };
    let left = match gone_within(limit, LOOK_EVERY, is_gone).await? {
        true => Vec::new(),
        false => find(claim).await?,
    };
    let removal = |what: String| {
        let ended = if left.contains(&what) { Ended::Alive } else { Ended::Terminated };
        Removal { what, ended, left: None }
    };
    Ok(before.into_iter().map(removal).collect())
}

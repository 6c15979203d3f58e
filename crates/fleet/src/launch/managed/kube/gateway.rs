//! What stands before the pods of an InferencePool: whether its Gateway and HTTPRoute let requests through, and where.
//!
//! **Invariants.** Pure, from what `kubectl get` printed. A condition counts only where it is of what was asked last.
//! One that is not true is told with its reason and message, as its controller gave them; given up is only what no
//! controller changes its mind about.

use super::super::{End, Look};
use super::objects::{Condition, Object};
use super::sight::Sight;
use crate::render::kube::ROLE;
use scalebeam_model::plan::DeploymentPlan;

const DEPLOYMENT: &str = "Deployment";
const GATEWAY: &str = "Gateway";
const ROUTE: &str = "HTTPRoute";
const POOL: &str = "InferencePool";

/// Conditions of a route, and of a pool.
const ACCEPTED: &str = "Accepted";
const RESOLVED: &str = "ResolvedRefs";

/// Why no request comes through.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shut {
    end: End,
    /// No wait heals it.
    is_final: bool,
}

/// A reason for which a condition is not true, and what helps.
struct Known {
    kind: &'static str,
    reason: &'static str,
    hint: &'static str,
    is_final: bool,
}

const fn may_pass(kind: &'static str, reason: &'static str, hint: &'static str) -> Known {
    Known { kind, reason, hint, is_final: false }
}

const fn never(kind: &'static str, reason: &'static str, hint: &'static str) -> Known {
    Known { kind, reason, hint, is_final: true }
}

/// What the Gateway API calls it where nobody has looked at an object.
const UNSEEN: &str = "Pending";

/// Reasons of the Gateway API and its inference extension. What is not here is told without a hint of ours.
const KNOWN: &[Known] = &[
    may_pass(
        GATEWAY,
        UNSEEN,
        "no controller has programmed it: `kubectl get gatewayclasses` shows whether one takes this class; correct \
         gateway_class in params, or raise `ready = { timeout = \"..\" }`",
    ),
    may_pass(
        GATEWAY,
        "AddressNotAssigned",
        "the cluster gives its gateway no address: it needs a load balancer, or a gateway_class whose gateways stay \
         inside of the cluster and scalebeam in a pod there",
    ),
    may_pass(
        GATEWAY,
        "NoResources",
        "the gateway's own pods do not run: see them, and the log of the controller of its class",
    ),
    never(
        GATEWAY,
        "InvalidParameters",
        "its GatewayClass names parameters that its controller does not take: use another gateway_class in params",
    ),
    never(
        ROUTE,
        "InvalidKind",
        "the controller of its gateway knows no InferencePool: enable its inference extension, or name a gateway_class \
         whose controller has it",
    ),
    never(
        ROUTE,
        "UnsupportedValue",
        "the controller of its gateway does not take such a route: name a gateway_class of another one",
    ),
    may_pass(
        ROUTE,
        UNSEEN,
        "the controller of its gateway has not looked at the route: see its log, and gateway_class in params",
    ),
    may_pass(
        ROUTE,
        "BackendNotFound",
        "its gateway does not see the InferencePool: see the log of the gateway's controller",
    ),
    may_pass(
        POOL,
        "InvalidExtensionRef",
        "its gateway does not see the endpoint picker's Service: see the log of the gateway's controller",
    ),
];

/// Those of `objects` whose pods are counted. A controller may give our labels to the Deployment that it makes for the
/// Gateway, and none to its pods; that the Gateway is programmed says that they run.
pub(super) fn counted(objects: &[Object]) -> Vec<Object> {
    let is_ours =
        |o: &&Object| o.kind != DEPLOYMENT || o.spec.template.metadata.labels.contains_key(ROLE);
    objects.iter().filter(is_ours).cloned().collect()
}

/// `sight`, of pods, with what stands before them.
pub(super) fn before(sight: Sight, objects: &[Object]) -> Sight {
    match (sight, shut(objects)) {
        (Sight::Ready(_) | Sight::Pending(_), Some(Shut { end, is_final: true })) => {
            Sight::GivenUp(end)
        }
        (Sight::Ready(text), Some(Shut { end, .. })) => {
            Sight::Blocked(End { reason: format!("{text}; {}", end.reason), ..end })
        }
        // Who waits for pods should know of the rest, too.
        (Sight::Pending(text), Some(Shut { end, .. })) => {
            Sight::Pending(format!("{text}; {}", end.reason))
        }
        (sight, _) => sight,
    }
}

/// What an object says against requests.
type Says = fn(&Object) -> Option<Shut>;

/// What keeps requests from the pods; nothing where they come through. What is final goes before what may pass, and
/// what comes first on a request's way before what comes after.
fn shut(objects: &[Object]) -> Option<Shut> {
    let of = |kind: &str| objects.iter().find(|o| o.kind == kind);
    let says: [(&str, Says); 3] = [(GATEWAY, gateway_says), (ROUTE, route_says), (POOL, pool_says)];
    let each = says.map(|(kind, says)| of(kind).map_or_else(|| Some(missing(kind)), says));
    let all: Vec<Shut> = each.into_iter().flatten().collect();
    all.iter().find(|shut| shut.is_final).or(all.first()).cloned()
}

fn missing(kind: &str) -> Shut {
    Shut { end: End::new(format!("its {kind} is not there")), is_final: false }
}

fn gateway_says(gateway: &Object) -> Option<Shut> {
    let said = &gateway.status.conditions;
    // That it is not accepted says more than that it is not programmed.
    refused(gateway, said, ACCEPTED).or_else(|| untrue(gateway, said, "Programmed"))
}

fn route_says(route: &Object) -> Option<Shut> {
    let parents = &route.status.parents;
    if parents.is_empty() {
        return untrue(route, &[], ACCEPTED);
    }
    let each = parents.iter().flat_map(|parent| {
        [ACCEPTED, RESOLVED].map(|what| untrue(route, &parent.conditions, what))
    });
    each.flatten().next()
}

/// Not every controller says something of a pool, so only what is said to be false counts.
fn pool_says(pool: &Object) -> Option<Shut> {
    let each = pool.status.parents.iter().flat_map(|parent| {
        [ACCEPTED, RESOLVED].map(|what| refused(pool, &parent.conditions, what))
    });
    each.flatten().next()
}

/// The condition `what`, of what was asked last.
fn current<'a>(object: &Object, said: &'a [Condition], what: &str) -> Option<&'a Condition> {
    let is_current = |c: &&Condition| {
        c.observed_generation.is_none_or(|seen| seen >= object.metadata.generation)
    };
    said.iter().find(|c| c.r#type == what).filter(is_current)
}

/// Why `what` is not true of `object`.
fn untrue(object: &Object, said: &[Condition], what: &str) -> Option<Shut> {
    match current(object, said, what) {
        Some(condition) if condition.is_true() => None,
        Some(condition) => Some(told(object, condition)),
        None => {
            let unseen = Condition {
                r#type: what.to_owned(),
                reason: UNSEEN.to_owned(),
                message: "no controller has looked at it yet".to_owned(),
                ..Condition::default()
            };
            Some(told(object, &unseen))
        }
    }
}

/// Why `what` is said to be false of `object`.
fn refused(object: &Object, said: &[Condition], what: &str) -> Option<Shut> {
    current(object, said, what).filter(|c| c.status == "False").map(|c| told(object, c))
}

fn told(object: &Object, condition: &Condition) -> Shut {
    let Condition { r#type, reason, message, .. } = condition;
    let (kind, name) = (object.kind.as_str(), &object.metadata.name);
    let known = KNOWN.iter().find(|k| k.kind == kind && k.reason == reason);
    let mut words = vec![format!("{kind} {name} is not {}", r#type)];
    words.extend(
        [reason.as_str(), message.trim()].iter().filter(|w| !w.is_empty()).map(|w| (*w).to_owned()),
    );
    let end = End { reason: words.join(": "), hint: known.map(|k| k.hint.to_owned()) };
    Shut { end, is_final: known.is_some_and(|k| k.is_final && condition.status == "False") }
}

/// Where requests go to: the address that the file gives, or that of the Gateway.
///
/// # Errors
/// What is seen instead, where it has none, or none that is reached from here.
pub(super) fn address(
    objects: &[Object],
    plan: &DeploymentPlan,
    port: u16,
    is_inside: bool,
) -> Result<String, Look> {
    if let Some(given) = plan.text("gateway_address") {
        let has_port = given.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        return Ok(if has_port {
            format!("http://{given}")
        } else {
            format!("http://{given}:{port}")
        });
    }
    let gateway = objects.iter().find(|o| o.kind == GATEWAY);
    let Some(at) = gateway.and_then(|g| g.status.addresses.first()) else {
        let text = "its Gateway has no address yet";
        return Err(Look::Blocked(End::new(text).hint(
            "see the log of the gateway's controller, or give params = { gateway_address = \"HOST:PORT\" }",
        )));
    };
    let is_reached = is_inside || plan.text("expose").is_some();
    if is_of_cluster(&at.value) && !is_reached {
        let text = format!(
            "its Gateway answers inside of its cluster only, at {}, and scalebeam runs outside of it",
            at.value
        );
        return Err(Look::Ended(End::new(text).hint(
            "name a gateway_class whose gateways get an address outside, or run scalebeam in a pod of the cluster; \
             where the cluster's own network reaches to here, add expose = \"ClusterIP\"",
        )));
    }
    Ok(super::reach::url(&at.value, port))
}

/// Whether `host` is a name that only a cluster's own DNS knows.
fn is_of_cluster(host: &str) -> bool {
    host.ends_with(".svc") || host.ends_with(".cluster.local")
}

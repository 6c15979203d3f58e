//! An account of Kubernetes, and what it may do in its namespace.

use super::kube::{Meta, Object};
use super::subject::Subject;
use super::{RenderError, yaml};
use serde::Serialize;

const GROUP: &str = "rbac.authorization.k8s.io";
const API: &str = "rbac.authorization.k8s.io/v1";

/// What may be done with some resources of one API group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    api_groups: [&'static str; 1],
    resources: Vec<&'static str>,
    verbs: &'static [&'static str],
}

/// `verbs` for `resources` of `group`.
pub(super) fn rule(
    group: &'static str,
    resources: &[&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule { api_groups: [group], resources: resources.to_vec(), verbs }
}

/// An object without a spec.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bare {
    api_version: &'static str,
    kind: &'static str,
    metadata: Meta,
}

impl Bare {
    pub(super) fn new(
        subject: &Subject<'_>,
        api: (&'static str, &'static str),
        name: &str,
    ) -> Self {
        let Object { api_version, kind, metadata, spec: () } = subject.object(api, name, ());
        Self { api_version, kind, metadata }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Role {
    #[serde(flatten)]
    object: Bare,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    #[serde(flatten)]
    object: Bare,
    role_ref: Reference,
    subjects: [Account; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_group: &'static str,
    kind: &'static str,
    name: String,
}

#[derive(Debug, Serialize)]
struct Account {
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

/// The ServiceAccount `name`, a Role with `rules`, and what binds the two; a document each.
pub(super) fn account(
    subject: &Subject<'_>,
    name: &str,
    rules: Vec<Rule>,
) -> Result<[String; 3], RenderError> {
    const ACCOUNT: &str = "ServiceAccount";
    let role = Role { object: Bare::new(subject, (API, "Role"), name), rules };
    let namespace = subject.text("namespace").map(str::to_owned);
    let binding = Binding {
        object: Bare::new(subject, (API, "RoleBinding"), name),
        role_ref: Reference { api_group: GROUP, kind: "Role", name: name.to_owned() },
        subjects: [Account { kind: ACCOUNT, name: name.to_owned(), namespace }],
    };
    Ok([
        yaml::document(subject, &Bare::new(subject, ("v1", ACCOUNT), name))?,
        yaml::document(subject, &role)?,
        yaml::document(subject, &binding)?,
    ])
}

//! LeaderWorkerSet: an instance that spans nodes is a group of pods that live and die together.
//!
//! Ranks are vLLM's or SGLang's own; their numbers and the leader's address come from variables that the
//! controller sets. All workers of a group have one template.

use super::k8s::same;
use super::kube::{Pod, ROLE, Template};
use super::subject::Subject;
use super::{RenderError, Rendered, yaml};
use scalebeam_model::plan::{InstancePlan, ProcessPlan, RankLauncher};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderWorkerSetSpec {
    replicas: u32,
    startup_policy: &'static str,
    leader_worker_template: LeaderWorkerTemplate,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderWorkerTemplate {
    size: usize,
    restart_policy: &'static str,
    leader_template: Template,
    worker_template: Template,
}

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    subject.only_servers()?;
    if subject.deployment.launcher == Some(RankLauncher::Ray) {
        return Err(subject.cannot("launcher ray is not rendered", "set launcher = \"mp\""));
    }
    let groups = groups(subject)?;
    let mut documents = Vec::new();
    let mut leaders = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let name = subject.numbered(index, groups.len());
        leaders.extend((0..group.replicas).map(|i| format!("{name}-{i}.{name}")));
        let kind = ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet");
        let object = subject.object(kind, &name, spec(subject, group)?);
        documents.push(yaml::document(subject, &object)?);
    }
    let mut selector = subject.own_labels();
    selector.insert(ROLE.to_owned(), "leader".to_owned());
    // The controller makes a headless Service of the plain name, by which ranks find their leader.
    let name = format!("{}-leader", subject.name);
    documents.push(yaml::document(subject, &subject.service(&name, selector.clone()))?);
    for service in subject.exposed(&leaders, selector)? {
        documents.push(yaml::document(subject, &service)?);
    }
    Ok(subject.rendered_yaml(&yaml::joined(&documents), subject.kubectl(&leaders)))
}

/// Neighbouring instances that are alike.
#[derive(Debug)]
struct Group<'a> {
    leader: Pod<'a>,
    worker: Pod<'a>,
    size: usize,
    replicas: u32,
}

fn groups<'a>(subject: &Subject<'a>) -> Result<Vec<Group<'a>>, RenderError> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for instance in &subject.deployment.instances {
        let group = group(subject, instance)?;
        let same = |a: Pod<'_>, b: Pod<'_>| same(subject, a, b);
        match groups.last_mut().filter(|g| {
            g.size == group.size && same(g.leader, group.leader) && same(g.worker, group.worker)
        }) {
            Some(known) => known.replicas += 1,
            None => groups.push(group),
        }
    }
    Ok(groups)
}

fn group<'a>(subject: &Subject<'a>, instance: &'a InstancePlan) -> Result<Group<'a>, RenderError> {
    let processes = subject.processes_of(instance);
    let pods: Vec<Pod<'a>> = processes
        .iter()
        .zip(&instance.place)
        .map(|(process, place)| pod(process, &place.host))
        .collect();
    let [leader, worker, more @ ..] = pods.as_slice() else {
        let reason = format!("instance {} does not span nodes", instance.index);
        return Err(
            subject.cannot(reason, "use platform = \"k8s\", or place = [\"a:0-7 + b:0-7\"]")
        );
    };
    if more.iter().any(|other| !same(subject, *worker, *other)) {
        return Err(subject.cannot(
            format!("the workers of instance {} are not alike", instance.index),
            "all pods but the leader's have one template: give their hosts the same labels, and span \
             nodes by tp and pp instead of dp",
        ));
    }
    Ok(Group { leader: *leader, worker: *worker, size: pods.len(), replicas: 1 })
}

fn pod<'a>(process: &'a ProcessPlan, host: &'a str) -> Pod<'a> {
    Pod { process, gpus: process.gpus.len() as u64, host }
}

fn spec(subject: &Subject<'_>, group: &Group<'_>) -> Result<LeaderWorkerSetSpec, RenderError> {
    let mut leader = subject.template(group.leader)?;
    subject.serve(&mut leader)?;
    leader.metadata.labels.insert(ROLE.to_owned(), "leader".to_owned());
    let mut worker = subject.template(group.worker)?;
    worker.metadata.labels.insert(ROLE.to_owned(), "worker".to_owned());
    Ok(LeaderWorkerSetSpec {
        replicas: group.replicas,
        // The leader answers only once its workers are there, so they cannot wait for it.
        startup_policy: "LeaderCreated",
        leader_worker_template: LeaderWorkerTemplate {
            size: group.size,
            restart_policy: "RecreateGroupOnPodRestart",
            leader_template: leader,
            worker_template: worker,
        },
    })
}

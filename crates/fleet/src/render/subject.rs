//! One deployment of a plan, and the questions that every platform asks about it.

use super::{RenderError, Rendered, RenderedFile};
use scalebeam_model::plan::{
    DeploymentPlan, EngineKind, Gate, InstancePlan, ParamValue, Plan, ProcessPlan, Role,
    object_name,
};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;

/// What is rendered.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) plan: &'a Plan,
    pub(super) deployment: &'a DeploymentPlan,
    /// Its name as that of an object of a cluster, and of its file.
    pub(super) name: String,
    /// The name where deployments of other experiments are beside it.
    pub(super) full_name: String,
}

impl<'a> Subject<'a> {
    pub(super) fn new(plan: &'a Plan, deployment: &'a DeploymentPlan) -> Self {
        let full_name = object_name(&format!("{}-{}", plan.name, deployment.name));
        Self { plan, deployment, name: object_name(&deployment.name), full_name }
    }

    /// The same, by a name that it has in one run only.
    pub(super) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), full_name: name.to_owned(), ..self }
    }

    /// The same of another deployment.
    pub(super) fn of<'b>(&self, deployment: &'b DeploymentPlan) -> Subject<'b>
    where
        'a: 'b,
    {
        let (name, full_name) = (self.name.clone(), self.full_name.clone());
        Subject { plan: self.plan, deployment, name, full_name }
    }

    /// The name of the `index`-th of `count` like objects: its own where there is one.
    pub(super) fn numbered(&self, index: usize, count: usize) -> String {
        if count == 1 { self.name.clone() } else { format!("{}-{index}", self.name) }
    }

    pub(super) fn cannot(&self, reason: impl Into<String>, hint: impl Into<String>) -> RenderError {
        RenderError {
            deployment: self.deployment.name.clone(),
            platform: self.deployment.platform,
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// The file for a platform that reads YAML.
    pub(super) fn rendered_yaml(&self, body: &str, ways: Ways) -> Rendered {
        self.rendered(format!("{}.yaml", self.name), body, ways)
    }

    /// One file with `body` below a comment that says what it is and how it is used.
    pub(super) fn rendered(&self, path: String, body: &str, ways: Ways) -> Rendered {
        let Ways { up, down, endpoints } = ways;
        let (up, down) = (up.replace("FILE", &path), down.replace("FILE", &path));
        // A job script begins with its interpreter.
        let (first, rest) = match body.split_once('\n') {
            Some((first, rest)) if first.starts_with("#!") => (format!("{first}\n"), rest),
            _ => (String::new(), body),
        };
        let text = format!(
            "{first}# Deployment {} of experiment {}, rendered by scalebeam from its plan.\n\
             # up:     {up}\n# down:   {down}\n\
             # attach: {}\n{rest}",
            self.deployment.name,
            one_line(&self.plan.name),
            super::attach(&endpoints),
        );
        Rendered {
            deployment: self.deployment.name.clone(),
            platform: self.deployment.platform,
            files: vec![RenderedFile { path, text }],
            up,
            down,
            endpoints,
            inside: None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.deployment.text(name)
    }

    pub(super) fn integer(&self, name: &str) -> Option<u64> {
        match self.deployment.params.get(name)? {
            ParamValue::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> &'a [String] {
        self.deployment.list(name)
    }

    pub(super) fn span(&self, name: &str) -> Option<Nanos> {
        self.deployment.span(name)
    }

    /// The image of the file, else the engine's own of the version asked for.
    pub(super) fn image(&self) -> Result<String, RenderError> {
        let repository = match self.deployment.engine {
            EngineKind::Vllm => "vllm/vllm-openai:v",
            EngineKind::Sglang => "lmsysorg/sglang:v",
            EngineKind::DynamoVllm | EngineKind::DynamoMocker => {
                "nvcr.io/nvidia/ai-dynamo/vllm-runtime:"
            }
            EngineKind::DynamoSglang => "nvcr.io/nvidia/ai-dynamo/sglang-runtime:",
            _ => "",
        };
        match (&self.deployment.image, &self.deployment.version) {
            (Some(image), _) => Ok(image.clone()),
            (None, Some(version)) if !repository.is_empty() => Ok(format!("{repository}{version}")),
            _ => Err(self.cannot(
                "it names no image",
                "add image = \"REPOSITORY:TAG\"; with vllm, sglang and Dynamo, version = \"..\" does too",
            )),
        }
    }

    /// The one kind of its GPUs, where it has any.
    pub(super) fn gpu_kind(&self) -> Result<Option<&'a str>, RenderError> {
        match self.deployment.gpu_kinds.as_slice() {
            _ if self.deployment.gpus == 0 => Ok(None),
            [kind] => Ok(Some(kind)),
            _ => Err(self.cannot("it does not say one kind of GPU", "add gpu = \"H100\"")),
        }
    }

    /// The most requests that its points have in flight; absent where only the server bounds them.
    pub(super) fn most_in_flight(&self) -> Option<u64> {
        let mine = self.plan.every_point().filter(|p| p.deployment == self.deployment.name);
        let phases = mine.flat_map(|p| std::iter::once(&p.measure).chain(&p.warmup));
        phases.map(|p| p.most_in_flight()).try_fold(0, |most, next| Some(next?.max(most)))
    }

    /// The path that is 200 once a server lives.
    pub(super) fn health_path(&self) -> Result<&'a str, RenderError> {
        let path = self.deployment.ready.gates.iter().find_map(|gate| match gate {
            Gate::Http { path } => Some(path.as_str()),
            _ => None,
        });
        path.ok_or_else(|| {
            let hint = "add ready = { health = \"/path\" }";
            self.cannot("nothing says which path is 200 once it serves", hint)
        })
    }

    /// Processes of `instance`, in rank order.
    pub(super) fn processes_of(&self, instance: &InstancePlan) -> Vec<&'a ProcessPlan> {
        let all = self.deployment.processes.iter();
        all.filter(|p| p.instance == Some(instance.index)).collect()
    }

    /// The one server of `instance`.
    pub(super) fn server_of(
        &self,
        instance: &InstancePlan,
    ) -> Result<&'a ProcessPlan, RenderError> {
        match self.processes_of(instance).as_slice() {
            [server] => Ok(server),
            processes => Err(self.cannot(
                format!("instance {} has {} processes", instance.index, processes.len()),
                "one that spans nodes is for platform = \"lws\"",
            )),
        }
    }

    /// The port that requests come to.
    pub(super) fn port(&self) -> u16 {
        let http =
            self.deployment.processes.iter().flat_map(|p| &p.ports).find(|p| p.name == "http");
        http.map_or(8000, |p| p.port)
    }

    /// What picks the node of a place: the labels of its host.
    pub(super) fn selector(&self, host: &str) -> BTreeMap<String, String> {
        let host = self.plan.hosts.iter().find(|h| h.name == host);
        host.map(|h| h.labels.clone()).unwrap_or_default()
    }

    /// Refuses engines that have processes beside their instances, or instances of several roles.
    pub(super) fn only_servers(&self) -> Result<(), RenderError> {
        let d = self.deployment;
        if d.processes.iter().any(|p| p.instance.is_none()) {
            let reason = format!("engine {} has a control plane of its own", d.engine.name());
            let hint = "ray-serve-llm is for platform = \"kuberay\", Dynamo for platform = \"dgd\"";
            return Err(self.cannot(reason, hint));
        }
        if d.instances.iter().any(|i| i.role != Role::Aggregated) {
            let hint = "use engine = \"dynamo-vllm\" on platform = \"dgd\"";
            return Err(self.cannot("prefill and decode pools need a router", hint));
        }
        Ok(())
    }
}

/// Commands with `FILE` where the file's name belongs, and where the deployment answers.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) up: String,
    pub(super) down: String,
    pub(super) endpoints: Vec<String>,
}

/// Whole seconds of `span`, rounded up: a platform that is told less gives up early.
pub(super) fn seconds(span: Nanos) -> u64 {
    span.0.div_ceil(1_000_000_000)
}

/// `text` in a comment: it cannot end it.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

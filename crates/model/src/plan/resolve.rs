//! From a checked file to a plan: ports, commands, environment, gates, points, estimate.

use super::points::{Measurements, Target, measurements};
use super::servers::{entries, port_url, port_urls, ranked_servers};
use super::shape::{Shape, THIS_MACHINE, shapes};
use super::{
    DeploymentPlan, EntryPlan, EnvValue, Estimate, Gate, HostPlan, InstancePlan, LOOPBACK,
    ModelPlan, PLAN_FORMAT, ParamValue, Plan, Platform, PointPlan, ProcessPlan, RAY_METRICS,
    ReadyPlan, Role, StopPlan, Turn,
};
use crate::cost::Taken;
use crate::engine::{
    CacheReset, Engine, Engines, Given, LaunchRequest, Params, ProcessDraft, RouterFacts, find,
};
use crate::search::SearchPlan;
use crate::spec::{Deploy, Experiment, Host, LimitSpec, ProbeKind, Problem, TelemetrySpec};
use crate::units::Nanos;
use crate::workload::CachePolicy;
use std::collections::BTreeMap;

const DEFAULT_READY_TIMEOUT: Nanos = Nanos::from_secs(30 * 60);
/// A server of somebody else is there or it is not.
const DEFAULT_ATTACH_TIMEOUT: Nanos = Nanos::from_secs(30);
const DEFAULT_GRACE: Nanos = Nanos::from_secs(60);
/// Ports beside the one it serves on that each instance may use.
const EXTRA_PORTS: u16 = 16;

/// Why a file that reads well cannot become a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file cannot be planned: {} problems", .0.len())]
pub struct PlanError(pub Vec<Problem>);

/// Resolves `experiment`. The same file gives the same plan, to the byte.
///
/// # Errors
/// What is wrong, by key of the file.
pub fn resolve(experiment: &Experiment, engines: Engines<'_>) -> Result<Plan, PlanError> {
    let hosts = hosts(experiment);
    let model = model(experiment);
    let mut problems = Vec::new();
    let mut deployments = Vec::new();
    for (index, deploy) in experiment.deployments() {
        match deployment(index, deploy, experiment, &hosts, &model, engines) {
            Ok(plan) => deployments.push(plan),
            Err(more) => problems.extend(more),
        }
    }
    let machines: Vec<HostPlan> = hosts.into_values().collect();
    price(&mut deployments, experiment, &machines);
    let roles: Vec<Vec<Role>> =
        deployments.iter().map(|d| d.instances.iter().map(|i| i.role).collect()).collect();
    let targets: Vec<Target<'_>> = deployments
        .iter()
        .zip(&roles)
        .map(|(d, roles)| Target {
            name: &d.name,
            roles,
            entries: u16::try_from(d.entries.len()).unwrap_or(u16::MAX),
            balance: d.balance,
        })
        .collect();
    let Measurements { points, searches } =
        measurements(experiment, &targets).unwrap_or_else(|more| {
            problems.extend(more);
            Measurements::default()
        });
    let limit = experiment.limit.as_ref().map(LimitSpec::limit).unwrap_or_default();
    problems.extend(limit.unpriced(&deployments));
    if !problems.is_empty() {
        return Err(PlanError(problems));
    }
    let every_point: Vec<&PointPlan> =
        points.iter().chain(searches.iter().flat_map(|s| &s.levels)).collect();
    name_probes(&mut deployments, &every_point);
    let interleave = experiment.interleave.unwrap_or_default();
    let turns = super::order::turns(interleave, &deployments, &points, &searches);
    let estimate = estimate(&turns, &searches);
    let notes = super::notes::notes(experiment, &deployments, &points, &every_point, &machines);
    let mut plan = Plan {
        format: PLAN_FORMAT,
        name: experiment.name.clone(),
        about: experiment.about.clone(),
        model,
        hosts: machines,
        sources: experiment.client.as_ref().map_or_else(Vec::new, |c| c.source.clone()),
        deployments,
        points,
        interleave,
        searches,
        prices: experiment.prices.clone(),
        limit,
        telemetry: experiment.telemetry.as_ref().map(TelemetrySpec::plan).unwrap_or_default(),
        notes,
        estimate,
    };
    plan.weigh_limit();
    Ok(plan)
}

/// Deployments without a price of their own, or of all their machines, have that of the file's table.
fn price(deployments: &mut [DeploymentPlan], experiment: &Experiment, hosts: &[HostPlan]) {
    let Some(prices) = &experiment.prices else { return };
    for deployment in deployments.iter_mut().filter(|d| d.price_per_hour.is_none()) {
        let rent = prices.rent(&Taken::of(deployment, hosts), prices.terms());
        deployment.price_is_of_hosts = rent.as_ref().is_ok_and(|rent| rent.is_of_hosts);
        deployment.price_per_hour = rent.ok().map(|rent| rent.per_hour);
    }
}

/// Writes into each completion gate which families its deployment's points are measured with.
fn name_probes(deployments: &mut [DeploymentPlan], points: &[&PointPlan]) {
    for deployment in deployments {
        let mine = points.iter().filter(|p| p.deployment == deployment.name);
        let mut measured: Vec<_> = mine.map(|p| p.workload.api).collect();
        measured.sort_unstable();
        measured.dedup();
        for gate in &mut deployment.ready.gates {
            if let Gate::Completion { apis } = gate {
                apis.clone_from(&measured);
            }
        }
    }
}

fn model(experiment: &Experiment) -> ModelPlan {
    let m = &experiment.model;
    ModelPlan {
        id: m.id.clone(),
        served: m.served.clone().unwrap_or_else(|| m.id.clone()),
        revision: m.revision.clone(),
        tokenizer: m.tokenizer.clone(),
        dtype: m.dtype.clone(),
        max_len: m.max_len,
    }
}

fn hosts(experiment: &Experiment) -> BTreeMap<String, HostPlan> {
    use crate::spec::place::{find_host, host_names};
    let of = |name: &str, host: &Host| HostPlan {
        name: name.to_owned(),
        addr: host.addr.clone().unwrap_or_else(|| match &host.ssh {
            Some(ssh) => ssh.clone(),
            None => LOOPBACK.to_owned(),
        }),
        ssh: host.ssh.clone(),
        gpus: host.gpus,
        gpu: host.gpu.clone(),
        iface: host.iface.clone(),
        labels: host.labels.clone(),
    };
    host_names(&experiment.host)
        .into_iter()
        .filter_map(|name| {
            let (_, host) = find_host(&name, &experiment.host)?;
            Some((name.clone(), of(&name, host)))
        })
        .collect()
}

fn deployment(
    index: usize,
    deploy: &Deploy,
    experiment: &Experiment,
    hosts: &BTreeMap<String, HostPlan>,
    model: &ModelPlan,
    engines: Engines<'_>,
) -> Result<DeploymentPlan, Vec<Problem>> {
    let path = format!("deploy[{index}]");
    let (Some(platform), Some(kind)) = (deploy.platform, deploy.engine) else {
        return Err(vec![Problem::new(path, "a deployment needs platform and engine", "")]);
    };
    let Some(engine) = find(engines, kind) else {
        let message = format!("no engine '{}' in this version", kind.name());
        return Err(vec![Problem::new(path, message, "")]);
    };
    let shapes = shapes(index, deploy, &experiment.host, engine, platform)?;
    let mut model = model.clone();
    if let Some(id) = &deploy.model {
        if model.served == model.id {
            model.served.clone_from(id);
        }
        model.id.clone_from(id);
    }
    let mut hosts = hosts.clone();
    if hosts.is_empty() {
        hosts.insert(THIS_MACHINE.to_owned(), this_machine(deploy, &shapes));
    }
    let (params, engine_params) = super::platform::split(platform, &deploy.params);
    let roles: Vec<Role> = shapes.iter().map(|s| s.role).collect();
    let router = engine.router(&roles, &engine_params).filter(|_| platform.takes_routers());
    let ctx = Ctx {
        deploy,
        experiment,
        hosts: &hosts,
        model: &model,
        engine,
        platform,
        params: &params,
        engine_params: &engine_params,
        has_entry: engine.has_own_entry() || router.is_some(),
        router,
    };
    if usize::from(ctx.first_port()) + 1_000 + shapes.len() * usize::from(EXTRA_PORTS) > 65_535 {
        let hint = "each instance takes the next port, and some above 1000 beyond";
        let message =
            format!("no room for {} instances above port {}", shapes.len(), ctx.first_port());
        return Err(vec![Problem::new(format!("{path}.port"), message, hint)]);
    }
    let instances = ctx.instances(&shapes);
    let processes = ctx.processes(&shapes, &instances).map_err(|why| {
        vec![Problem::new(path.clone(), why, "change the shape, the engine or its params")]
    })?;
    let plan = ctx.plan(instances, processes);
    let problems = super::gate::check(index, &plan);
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn this_machine(deploy: &Deploy, shapes: &[Shape]) -> HostPlan {
    let ids = shapes.iter().flat_map(|s| &s.place).flat_map(|p| &p.ids);
    HostPlan {
        name: THIS_MACHINE.to_owned(),
        addr: LOOPBACK.to_owned(),
        ssh: None,
        gpus: ids.max().map_or(0, |max| max + 1),
        gpu: deploy.gpu.clone(),
        iface: None,
        labels: BTreeMap::new(),
    }
}

/// All instances of a deployment, each with what the user gives it.
#[derive(Clone, Copy)]
struct Pools<'a> {
    instances: &'a [InstancePlan],
    given: &'a [Given<'a>],
}

/// Everything that the parts of one deployment's plan are made from.
struct Ctx<'a> {
    deploy: &'a Deploy,
    experiment: &'a Experiment,
    hosts: &'a BTreeMap<String, HostPlan>,
    model: &'a ModelPlan,
    engine: &'static dyn Engine,
    platform: Platform,
    /// What of `params` the platform is told.
    params: &'a BTreeMap<String, ParamValue>,
    /// What of `params` the engine is told.
    engine_params: &'a Params,
    /// One entry stands before all instances.
    has_entry: bool,
    /// It is a router, and the instances have servers of their own behind it.
    router: Option<RouterFacts>,
}

impl Ctx<'_> {
    fn first_port(&self) -> u16 {
        let first = self.deploy.port.unwrap_or_else(|| self.engine.default_port());
        // An entry before all instances is on the deployment's port.
        if self.has_entry { first.saturating_add(1) } else { first }
    }

    fn instances(&self, shapes: &[Shape]) -> Vec<InstancePlan> {
        // By address, not by name: two hosts of a file may be one machine under two names.
        let mut next: BTreeMap<&str, u16> = BTreeMap::new();
        let of = |(index, shape): (usize, &Shape)| {
            let mut plan = shape.instance(u32::try_from(index).unwrap_or(u32::MAX));
            let servers: Vec<(&str, u16)> = plan
                .servers_by_host()
                .into_iter()
                .map(|(host, n)| (self.hosts.get(host).map_or("", |h| h.addr.as_str()), n))
                .collect();
            let free = servers.iter().filter_map(|(addr, _)| next.get(addr));
            let port = free.max().copied().unwrap_or_else(|| self.first_port());
            if !self.platform.isolates() {
                next.extend(servers.iter().map(|(addr, n)| (*addr, port.saturating_add(*n))));
            }
            plan.port = port;
            plan
        };
        shapes.iter().enumerate().map(of).collect()
    }

    fn processes(
        &self,
        shapes: &[Shape],
        instances: &[InstancePlan],
    ) -> Result<Vec<ProcessPlan>, String> {
        if self.platform == Platform::External {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        let given: Vec<Given<'_>> = shapes.iter().map(|shape| self.given(shape)).collect();
        let pools = Pools { instances, given: &given };
        if let (Some(shape), Some(instance)) = (shapes.first(), instances.first()) {
            let extra = self.extra_ports(instances.len());
            let request = self.request(shape, instance, pools, &extra);
            for draft in self.engine.infra_processes(&request)? {
                out.push(self.process(draft, None, &BTreeMap::new()));
            }
        }
        for (shape, instance) in shapes.iter().zip(instances) {
            let extra = self.extra_ports(instance.index as usize);
            let request = self.request(shape, instance, pools, &extra);
            let fill = |(name, value): (&String, &String)| {
                self.engine.variable(value, &request).map(|value| (name.clone(), value))
            };
            let env = shape.env.iter().map(fill).collect::<Result<BTreeMap<_, _>, _>>()?;
            for draft in self.engine.processes(&request)? {
                out.push(self.process(draft, Some(instance.index), &env));
            }
        }
        Ok(out)
    }

    fn given<'b>(&self, shape: &'b Shape) -> Given<'b> {
        let is_own =
            |(name, value): &(&String, &String)| self.deploy.env.get(*name) != Some(*value);
        let env = shape.env.iter().filter(is_own);
        Given {
            args: &shape.args,
            env: env.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }

    fn extra_ports(&self, index: usize) -> Vec<u16> {
        let index = match self.platform.isolates() {
            true => 0,
            false => u16::try_from(index).unwrap_or(u16::MAX),
        };
        let first = self.first_port().saturating_add(1_000).saturating_add(index * EXTRA_PORTS);
        (first..first.saturating_add(EXTRA_PORTS)).collect()
    }

    fn request<'b>(
        &'b self,
        shape: &'b Shape,
        instance: &'b InstancePlan,
        pools: Pools<'b>,
        extra_ports: &'b [u16],
    ) -> LaunchRequest<'b> {
        LaunchRequest {
            deployment: &self.deploy.name,
            platform: self.platform,
            model: self.model,
            instance,
            instances: u32::try_from(pools.instances.len()).unwrap_or(u32::MAX),
            pools: pools.instances,
            hosts: self.hosts,
            launcher: self.deploy.launcher,
            args: &shape.args,
            given: pools.given,
            params: self.engine_params,
            infra: self.deploy.infra.as_ref(),
            extra_ports,
        }
    }

    fn process(
        &self,
        draft: ProcessDraft,
        instance: Option<u32>,
        own_env: &BTreeMap<String, String>,
    ) -> ProcessPlan {
        let mut env: BTreeMap<String, EnvValue> = BTreeMap::new();
        for name in self.engine.inherited_env() {
            env.insert((*name).to_owned(), EnvValue::INHERIT);
        }
        env.extend(draft.env);
        for (key, value) in self.cache_reset().iter().flat_map(|reset| reset.env) {
            env.insert((*key).to_owned(), EnvValue::Set((*value).to_owned()));
        }
        let host_env = crate::spec::place::find_host(&draft.host, &self.experiment.host);
        let layers = [
            Some(&self.experiment.env),
            host_env.map(|(_, h)| &h.env),
            instance.is_none().then_some(&self.deploy.env),
            Some(own_env),
        ];
        for (key, value) in layers.into_iter().flatten().flatten() {
            env.insert(key.clone(), EnvValue::Set(value.clone()));
        }
        let part = instance.map_or_else(|| "infra".to_owned(), |i| i.to_string());
        let name = &self.deploy.name;
        ProcessPlan {
            id: format!("{name}/{part}/{}", draft.what),
            instance,
            host: draft.host,
            program: draft.program,
            args: draft.args,
            env,
            ports: draft.ports,
            gpus: draft.gpus,
            rank: draft.rank,
            log: format!("logs/{name}/{part}-{}.log", draft.what),
            after: draft.after,
            files: draft.files,
        }
    }

    fn plan(self, instances: Vec<InstancePlan>, processes: Vec<ProcessPlan>) -> DeploymentPlan {
        let d = self.deploy;
        let says_shape = d.tp.or(d.pp).or(d.dp).is_some() || !d.pool.is_empty();
        let of_shape: u32 = instances.iter().map(InstancePlan::gpus).sum();
        let placed = instances.iter().flat_map(|i| &i.place).map(|p| p.ids.len()).sum::<usize>();
        let gpus = match self.platform {
            // What is behind somebody else's endpoint is known where the file says so.
            Platform::External if !says_shape => 0,
            Platform::External => of_shape,
            _ if self.engine.takes_gpus() => of_shape,
            // An engine that can do without has those that its place names.
            _ => u32::try_from(placed).unwrap_or(u32::MAX),
        };
        let entries = self.entries(&instances);
        let ready = self.ready(&instances, &processes);
        let of_hosts = self.price_of_hosts(&instances);
        let stop = d.stop.clone().unwrap_or_default();
        let cache_reset = self.cache_reset().map(|reset| reset.path);
        let roles: Vec<Role> = instances.iter().map(|i| i.role).collect();
        let runs = self.engine.can_run_on(self.platform);
        let cannot_run = runs.and_then(|()| self.engine.can_run_roles(self.platform, &roles)).err();
        DeploymentPlan {
            name: d.name.clone(),
            platform: self.platform,
            engine: self.engine.kind(),
            version: d.version.clone(),
            image: d.image.clone(),
            params: self.params.clone(),
            launcher: d.launcher,
            model: self.model.id.clone(),
            served_model: self.model.served.clone(),
            gpus,
            gpu_kinds: self.gpu_kinds(&instances),
            entries,
            balance: d.balance.unwrap_or_default(),
            api_key_env: d.api_key_env.clone(),
            headers_env: d.headers_env.clone(),
            ca_file: d.ca_file.clone(),
            http: d.http.unwrap_or_default(),
            cache_reset,
            ready,
            stop: StopPlan {
                grace: stop.grace.map_or(DEFAULT_GRACE, |g| g.0),
                always: stop.always.unwrap_or(true),
            },
            price_per_hour: self.deploy.price_per_hour.or(of_hosts),
            price_is_of_hosts: self.deploy.price_per_hour.is_none() && of_hosts.is_some(),
            optional: d.optional.unwrap_or(false),
            cannot_run,
            instances,
            processes,
        }
    }

    /// How its prefix cache is emptied, where a workload asks for that.
    fn cache_reset(&self) -> Option<CacheReset> {
        let is_asked = self.experiment.workload.iter().any(|w| w.cache == Some(CachePolicy::Reset));
        if is_asked { self.engine.cache_reset(self.engine_params) } else { None }
    }

    fn gpu_kinds(&self, instances: &[InstancePlan]) -> Vec<String> {
        let placed = instances.iter().flat_map(|i| &i.place);
        let mut kinds: Vec<String> =
            placed.filter_map(|p| self.hosts.get(&p.host)?.gpu.clone()).collect();
        kinds.extend(self.deploy.gpu.clone());
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// The sum over the machines that it sits on, where all have a price.
    fn price_of_hosts(&self, instances: &[InstancePlan]) -> Option<f64> {
        let mut names: Vec<&str> =
            instances.iter().flat_map(|i| &i.place).map(|p| p.host.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let of = |name: &&str| {
            crate::spec::place::find_host(name, &self.experiment.host)?.1.price_per_hour
        };
        let prices: Option<Vec<f64>> = names.iter().map(of).collect();
        prices.filter(|p| !p.is_empty()).map(|p| p.iter().sum())
    }

    fn entries(&self, instances: &[InstancePlan]) -> Vec<EntryPlan> {
        if let Some(endpoints) = &self.deploy.endpoint {
            let url = |u: &String| u.trim_end_matches('/').trim_end_matches("/v1").to_owned();
            return endpoints.0.iter().map(|u| EntryPlan { url: url(u), instance: None }).collect();
        }
        let addr_of = |i: &InstancePlan| {
            i.place.first().and_then(|p| self.hosts.get(&p.host)).map(|h| h.addr.as_str())
        };
        if self.has_entry || !self.platform.has_entry_per_instance() {
            let infra_host = self.deploy.infra.as_ref().and_then(|i| self.hosts.get(&i.host));
            let first = instances.first().and_then(addr_of);
            let addr = infra_host.map(|h| h.addr.as_str()).or(first).unwrap_or("127.0.0.1");
            let frontend = self.deploy.infra.as_ref().and_then(|i| i.frontend);
            let port = frontend.or(self.deploy.port).unwrap_or_else(|| self.engine.default_port());
            let several = instances.len() > 1 && !self.engine.has_own_entry();
            if matches!(self.platform, Platform::K8s | Platform::Lws) && several {
                return self.pods(instances, port);
            }
            let host = match self.platform {
                Platform::Local | Platform::Ssh => addr.to_owned(),
                // Slurm's own name of the node; its address is known once the job runs.
                Platform::Slurm => {
                    let infra = self.deploy.infra.as_ref().map(|i| i.host.clone());
                    let first = instances.first().map(super::platform::node_of);
                    infra.or(first).unwrap_or_default()
                }
                _ => super::platform::entry_host(self.platform, &self.deploy.name),
            };
            return vec![EntryPlan { url: format!("http://{host}:{port}"), instance: None }];
        }
        let served = instances.iter().filter(|i| i.role != Role::Prefill);
        let addr = |host: &str| self.hosts.get(host).map_or("127.0.0.1", |h| &h.addr).to_owned();
        let of = |i: &InstancePlan| match self.platform {
            Platform::Slurm => {
                let url = format!("http://{}:{}", super::platform::node_of(i), i.port);
                vec![EntryPlan { url, instance: Some(i.index) }]
            }
            _ => entries(i, addr),
        };
        served.flat_map(of).collect()
    }

    /// An entry an instance, where each is a pod with a name of its own: a Service would choose one for the
    /// life of a connection.
    fn pods(&self, instances: &[InstancePlan], port: u16) -> Vec<EntryPlan> {
        let name = super::platform::object_name(&self.deploy.name);
        let url = |i: &InstancePlan| format!("http://{name}-{}:{port}", i.index);
        instances.iter().map(|i| EntryPlan { url: url(i), instance: Some(i.index) }).collect()
    }

    fn ready(&self, instances: &[InstancePlan], processes: &[ProcessPlan]) -> ReadyPlan {
        let spec = self.deploy.ready.clone().unwrap_or_default();
        let mut expected: BTreeMap<String, u32> = BTreeMap::new();
        if self.platform != Platform::External {
            for instance in instances {
                *expected.entry(instance.role.name().to_owned()).or_default() += 1;
            }
        }
        let mut gates = Vec::new();
        if !processes.is_empty() {
            let processes = u32::try_from(processes.len()).unwrap_or(u32::MAX);
            gates.push(Gate::Alive { processes });
        }
        // An endpoint of somebody else need not have a health path.
        let is_asked = !processes.is_empty() && spec.log.is_none();
        let own = self.engine.health_path().filter(|_| is_asked).map(str::to_owned);
        gates.extend(spec.log.map(|text| Gate::Log { text }));
        // Before its instances are there, such an entry knows no path.
        let own_count = self.engine.count_gate(processes, instances);
        let is_counted = own_count.is_some();
        gates.extend(own_count);
        let health = spec.health.or(own);
        let model = (spec.models != Some(false)).then(|| self.model.served.clone());
        gates.extend(self.servers_answer(instances, processes, health.as_ref(), model.as_ref()));
        gates.extend(health.map(|path| Gate::Http { path }));
        let is_listed = self.router.is_none_or(|router| router.lists_models);
        gates.extend(model.filter(|_| is_listed).map(|model| Gate::ModelListed { model }));
        match self.router {
            Some(router) => gates.extend(workers(router, instances)),
            None if expected.is_empty() || is_counted => {}
            None => gates.push(Gate::Instances { expected }),
        }
        if spec.probe != Some(ProbeKind::Health) {
            // Which families are measured here is known once the points are.
            gates.push(Gate::Completion { apis: Vec::new() });
            gates.extend(self.ranks_answer(instances, processes));
            gates.extend(self.blocks_moved(instances, processes));
        }
        let default = match self.platform {
            Platform::External => DEFAULT_ATTACH_TIMEOUT,
            _ => DEFAULT_READY_TIMEOUT,
        };
        ReadyPlan {
            timeout: spec.timeout.map_or(default, |t| t.0),
            within: spec.within.as_ref().map(super::gate::limits).unwrap_or_default(),
            gates,
        }
    }
}

/// The proof that a router knows every server, where it tells.
fn workers(router: RouterFacts, instances: &[InstancePlan]) -> Option<Gate> {
    let path = router.workers?.to_owned();
    let servers = instances.iter().map(|i| i.servers().len()).sum::<usize>();
    Some(Gate::Workers { path, expected: u32::try_from(servers).unwrap_or(u32::MAX) })
}

impl Ctx<'_> {
    /// The proof that every instance behind a router serves: the router itself may answer for none.
    fn servers_answer(
        &self,
        instances: &[InstancePlan],
        processes: &[ProcessPlan],
        path: Option<&String>,
        model: Option<&String>,
    ) -> Option<Gate> {
        self.router?;
        path.or(model)?;
        let of = |i: &InstancePlan| {
            let instance = Some(i.index);
            let urls = port_urls(processes, i.index, "http");
            urls.map(move |url| EntryPlan { url, instance }).collect::<Vec<_>>()
        };
        let servers = instances.iter().flat_map(of).collect();
        Some(Gate::Servers { servers, path: path.cloned(), model: model.cloned() })
    }

    /// The proof that every data-parallel rank answers, where a request can ask for one.
    fn ranks_answer(&self, instances: &[InstancePlan], processes: &[ProcessPlan]) -> Option<Gate> {
        let header = self.engine.rank_header()?.to_owned();
        // One half of a split pair need not answer by itself; elsewhere processes are not reached from here.
        let is_whole = instances.iter().all(|i| i.role == Role::Aggregated);
        let servers = ranked_servers(instances, processes);
        (self.platform.places_processes() && is_whole && !servers.is_empty())
            .then_some(Gate::Ranks { header, servers })
    }

    /// The proof that decode instances are sent what prefill instances computed, where they count it.
    fn blocks_moved(&self, instances: &[InstancePlan], processes: &[ProcessPlan]) -> Option<Gate> {
        let of = |role| instances.iter().filter(move |i| i.role == role);
        let [prefill, decodes] = [Role::Prefill, Role::Decode].map(|role| of(role).count());
        let page = |instance: &InstancePlan| {
            let url = port_url(processes, instance.index, self.engine.kv_page()?)?;
            Some(EntryPlan { url, instance: Some(instance.index) })
        };
        let mut decode: Vec<EntryPlan> = of(Role::Decode).filter_map(page).collect();
        if decode.is_empty() {
            decode = node_pages(processes);
        }
        // Enough for each instance to have a turn.
        let prompts = u32::try_from(prefill.max(decodes)).unwrap_or(u32::MAX);
        let is_split = prefill > 0 && decodes > 0 && !decode.is_empty();
        is_split.then_some(Gate::BlocksMoved { decode, prompts })
    }
}

/// Where the nodes of a Ray cluster count what their engines do, whichever these are.
fn node_pages(processes: &[ProcessPlan]) -> Vec<EntryPlan> {
    let ports = processes.iter().flat_map(|p| &p.ports).filter(|port| port.name == RAY_METRICS);
    let url = |port: &super::PortPlan| format!("http://{}:{}", port.addr, port.port);
    ports.map(|port| EntryPlan { url: url(port), instance: None }).collect()
}

/// Seconds for bring-up and teardown, and for one output token of one request. Rough on purpose: it
/// tells a coffee from a night, and says what it assumes.
pub(super) fn estimate(turns: &[Turn<'_>], searches: &[SearchPlan]) -> Estimate {
    const TOKEN_S: f64 = 0.02;
    let mut wall = 0.0;
    let mut cost = Some(0.0);
    for Turn { deployment, trials, searches: is_searched } in turns {
        let points: f64 = trials.iter().map(|(point, _)| trial_seconds(point, TOKEN_S)).sum();
        let own = searches.iter().filter(|s| *is_searched && s.deployment == deployment.name);
        let searched = own.map(|s| search_seconds(s, TOKEN_S)).sum::<f64>();
        let hours = (bring_up_seconds(deployment) + points + searched) / 3_600.0;
        wall += hours * 3_600.0;
        cost = cost.zip(deployment.price_per_hour).map(|(c, p)| c + p * hours);
    }
    Estimate {
        wall: Nanos::from_secs_f64(wall.round()),
        cost,
        basis: format!(
            "{:.0} ms per output token, batches cost no more than one request, 2 s to 10 min of bring-up{}",
            TOKEN_S * 1e3,
            if searches.is_empty() { "" } else { "; searches at their longest" }
        ),
    }
}

/// A guess.
pub(super) const fn bring_up_seconds(deployment: &DeploymentPlan) -> f64 {
    use super::EngineKind;
    match (deployment.platform, deployment.engine) {
        (Platform::External, _) => 1.0,
        (_, EngineKind::Emulated) => 2.0,
        (_, EngineKind::LlamaCpp) => 10.0,
        (Platform::Local, _) => 120.0,
        _ => 600.0,
    }
}

/// One trial of a point.
fn trial_seconds(point: &PointPlan, token_s: f64) -> f64 {
    let tokens = f64::from(mean_output(&point.workload));
    let one = 0.2 + tokens * token_s;
    let phase = |p: &crate::driver::PhasePlan| {
        use crate::driver::LoadShape;
        let asked = p.requests.map_or(f64::INFINITY, |n| n as f64);
        let rounds = match &p.shape {
            LoadShape::Closed { concurrency, ramp_up, think } => {
                let think = think.or(p.sessions.as_ref().and_then(|s| s.think));
                let think = think.map_or(0.0, |t| t.mean().as_secs_f64());
                let ramp_up = ramp_up.map_or(0.0, Nanos::as_secs_f64);
                0.5 * ramp_up + (asked / f64::from(*concurrency).max(1.0)).ceil() * (one + think)
            }
            LoadShape::Burst => one,
            LoadShape::Open { rate_rps, .. } => {
                let turns = mean_turns(&point.workload);
                let begun = asked / turns;
                let last = if asked.is_finite() { rate_rps.due(begun) } else { None };
                let end = last.or_else(|| rate_rps.ends_at());
                let think = p.sessions.as_ref().and_then(|s| s.think);
                let think = think.map_or(0.0, |t| t.mean().as_secs_f64());
                let session = turns * one + (turns - 1.0) * think;
                end.map_or(f64::INFINITY, |end| end.as_secs_f64() + session)
            }
            // A trace that was not read yet is as long as its window, where that has an end.
            LoadShape::Replay { speed, window, due, .. } => {
                let end = window.to.or(due.last().copied()).unwrap_or(window.from);
                (end - window.from).as_secs_f64() / speed + one
            }
        };
        rounds.min(p.duration.map_or(f64::INFINITY, |d| d.as_secs_f64() + one))
    };
    point.pause.as_secs_f64() + phase(&point.measure) + point.warmup.as_ref().map_or(0.0, phase)
}

/// The most that it can take: every trial of the budget at the level that takes longest.
fn search_seconds(search: &SearchPlan, token_s: f64) -> f64 {
    let trial = |p: &PointPlan| trial_seconds(p, token_s);
    let longest = search.levels.iter().map(trial).fold(0.0, f64::max);
    // The last trial begins within the time, and ends beyond it.
    let within = search.time.map_or(f64::INFINITY, |t| t.as_secs_f64() + longest);
    (longest * f64::from(search.probes)).min(within)
}

/// Turns of a conversation whose length is in a file.
const USUAL_TURNS: u32 = 4;

/// Turns of a session, which a file of conversations may have fewer of.
fn mean_turns(workload: &crate::workload::Workload) -> f64 {
    use crate::workload::{Source, Talk};
    match &workload.source {
        Source::Sessions { talk: Talk::Synthetic { turns, .. }, .. } => f64::from(turns.mean),
        Source::Sessions { talk: Talk::File { turns, .. }, .. } => {
            f64::from((*turns).min(USUAL_TURNS))
        }
        _ => 1.0,
    }
}

/// Tokens of an answer whose length is in a file.
const USUAL_ANSWER: u32 = 256;

fn mean_output(workload: &crate::workload::Workload) -> u32 {
    use crate::workload::{Source, Talk};
    match &workload.source {
        Source::Synthetic { lengths, .. }
        | Source::Sessions { talk: Talk::Synthetic { lengths, .. }, .. } => lengths.osl,
        // Of a trace or of conversations nothing is known before they are read.
        Source::File { max_tokens, .. }
        | Source::Sessions { talk: Talk::File { max_tokens, .. }, .. } => {
            max_tokens.unwrap_or(USUAL_ANSWER)
        }
        Source::Prompts { prompts, .. } => {
            let sum: u32 = prompts.iter().map(|p| p.max_tokens).sum();
            sum / u32::try_from(prompts.len().max(1)).unwrap_or(1)
        }
        Source::Mix { parts } => parts.iter().map(|p| mean_output(&p.workload)).max().unwrap_or(0),
    }
}

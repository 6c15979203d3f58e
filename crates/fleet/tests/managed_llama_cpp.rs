//! The managed llama.cpp for real: installs from a package index (220 MB), serves, is taken down.
//! Run with `cargo nextest run -p scalebeam-fleet --run-ignored only`; `SCALEBEAM_TEST_CACHE` keeps the
//! install between runs.

use scalebeam_fleet::engine::engines;
use scalebeam_fleet::journal::{self, Journal};
use scalebeam_fleet::setup::llama_cpp;
use scalebeam_fleet::{Context, Stop, bring_up, leftovers};
use scalebeam_model::clock::{Clock, ManualClock};
use scalebeam_model::plan::resolve;
use scalebeam_model::spec::Experiment;
use scalebeam_model::units::Nanos;
use std::path::PathBuf;
use std::sync::Arc;

const FILE: &str = r#"
schema = 1
name = "real"
[model]
id = "SmolLM2-135M-Instruct"
served = "smollm2"
[[deploy]]
name = "one"
platform = "local"
engine = "llama.cpp"
port = 18277
params = { parallel = 2, ctx = 2048 }
[[workload]]
name = "w"
kind = "synthetic"
isl = 16
osl = 4
[[load]]
name = "l"
workload = "w"
mode = "closed"
concurrency = 1
requests = 1
"#;

#[tokio::test]
#[ignore = "downloads 120 MB"]
async fn it_installs_serves_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = std::env::var_os("SCALEBEAM_TEST_CACHE")
        .map_or_else(|| dir.path().join("cache"), PathBuf::from);
    let said = |text: &str| eprintln!("{text}");
    eprintln!("{}", llama_cpp::plan_text(&cache));
    llama_cpp::install(&cache, &said).await.unwrap();
    assert!(!llama_cpp::install(&cache, &said).await.unwrap().fresh, "a second time does nothing");
    assert!(scalebeam_fleet::launch::program_available("llama-server", &cache));

    let experiment = Experiment::parse(FILE, "real.toml", engines()).unwrap();
    let plan = resolve(&experiment, engines()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let journal = Journal::open(&dir.path().join(journal::FILE), clock.clone()).unwrap();
    let (_cancel, cancelled) = tokio::sync::watch::channel(Stop::Not);
    let ctx = Context {
        run_dir: dir.path().to_owned(),
        run_id: "real".into(),
        exe: "/bin/false".into(),
        cache_dir: cache,
        base: dir.path().to_owned(),
        plan: Arc::new(plan.clone()),
        journal: Arc::new(journal),
        clock,
        stop: cancelled,
        on_nodes: None,
    };
    let running = bring_up(&plan.deployments[0], &ctx, &|p| eprintln!("{p:?}")).await.unwrap();
    let report = running.take_down(Nanos::from_secs(10)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(leftovers(dir.path()).await.unwrap(), []);
}

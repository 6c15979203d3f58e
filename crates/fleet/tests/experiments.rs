//! Every experiment file of the repository becomes processes or says why not.

use scalebeam_fleet::engine::engines;
use scalebeam_model::plan::resolve;
use scalebeam_model::spec::Experiment;

#[test]
fn every_experiment_of_the_repository_is_planned() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let experiment = Experiment::parse(&text, &name, engines())
            .unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        let plan =
            resolve(&experiment, engines()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for deployment in &plan.deployments {
            let started = !deployment.processes.is_empty();
            let attached = deployment.platform.name() == "external";
            assert!(started || attached, "{name}: {}", deployment.name);
            // A pod's or a container's own address is not asked for what an engine counts: it is nobody's here.
            if !deployment.platform.places_processes() {
                let entries: Vec<&str> = deployment.entries.iter().map(|e| &*e.url).collect();
                assert_eq!(deployment.engine_urls(), entries, "{name}: {}", deployment.name);
            }
        }
        seen += 1;
    }
    assert!(seen > 0, "no experiment was found");
}

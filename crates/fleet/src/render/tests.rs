//! Quoting: whatever a value is, what reads the file gets that value.

use super::kube::literal;
use super::shell::command;
use super::subject::Subject;
use super::{RenderError, Rendered, render, yaml};
use crate::engine::engines;
use crate::host::quote;
use proptest::prelude::*;
use scalebeam_model::plan::{EnvValue, Plan, ProcessPlan, resolve};
use scalebeam_model::spec::Experiment;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

fn planned(deploy: &str) -> Plan {
    planned_on(
        "[host.a]\ngpus = 8\nlabels = { node = \"a\" }\n[host.b]\ngpus = 8\n[host.c]\ngpus = 1\naddr = \"10.0.0.3\"\n",
        deploy,
    )
}

fn planned_on(hosts: &str, deploy: &str) -> Plan {
    let text = format!(
        "schema = 1\nname = \"test\"\n[model]\nid = \"org/model\"\n{hosts}\
         [[deploy]]\nname = \"one\"\n{deploy}\n\
         [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
         [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"closed\"\nconcurrency = [4, 30]\nrequests = \"2x\"\n"
    );
    let experiment = Experiment::parse(&text, "test.toml", engines()).unwrap();
    resolve(&experiment, engines()).unwrap()
}

fn one(deploy: &str) -> Result<Rendered, RenderError> {
    render(&planned(deploy)).map(|mut all| all.remove(0))
}

fn text(deploy: &str) -> String {
    one(deploy).unwrap().files.remove(0).text
}

/// What Kubernetes makes of a command: `$$` is a dollar, `$(NAME)` of a known name its value.
fn expanded(text: &str, known: &BTreeMap<&str, &str>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|r| r.split_once(')')).map(|(name, _)| name);
        let (value, taken) = match (rest.strip_prefix("$$"), name.and_then(|n| known.get(n))) {
            (Some(_), _) => ("$", 2),
            (None, Some(value)) => (*value, name.map_or(0, str::len) + 3),
            (None, None) => ("$", 1),
        };
        out.push_str(value);
        rest = &rest[taken..];
    }
    out + rest
}

/// Texts in which everything occurs that a reader of YAML, a shell or Kubernetes takes for its own.
fn nasty() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "no",
        "yes",
        "on",
        "~",
        "null",
        "1e3",
        "0x1f",
        "012",
        "1_000",
        "12:30:45",
        "2026-01-01",
        "<<",
        "=",
        "- a",
        "a: b",
        "a #b",
        "'",
        "\"",
        "\\",
        "\\n",
        "{a: 1}",
        "[1]",
        "&a",
        "*a",
        "!t",
        "|",
        ">",
        "%",
        "@",
        "`",
        "$(HOME)",
        "$HOME",
        "$$",
        "$(POD",
        " ",
        "",
        "\n",
        "a\nb\n",
        "\t",
        "é",
        "\u{1F600}",
        "\u{85}",
        "\u{2028}",
        "---",
        "...",
        "?",
        ",",
        "#",
    ]);
    prop_oneof![
        prop::collection::vec(known, 1..4).prop_map(|parts| parts.concat()),
        "[ -~]{0,24}",
        "\\PC{0,12}",
    ]
}

fn process(env: BTreeMap<String, EnvValue>, args: Vec<String>) -> ProcessPlan {
    ProcessPlan {
        id: "d/0/serve".into(),
        instance: Some(0),
        host: "h".into(),
        program: "printf".into(),
        args,
        env,
        ports: vec![],
        gpus: vec![],
        rank: 0,
        log: String::new(),
        after: None,
        files: BTreeMap::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn yaml_gives_back_what_was_written(texts in prop::collection::vec(nasty(), 1..6), key in nasty()) {
        let plan = planned("platform = \"k8s\"\nengine = \"vllm\"\nversion = \"1\"");
        let subject = Subject::new(&plan, &plan.deployments[0]);
        let value = BTreeMap::from([(key, texts)]);
        let written = yaml::document(&subject, &value).unwrap();
        let read: BTreeMap<String, Vec<serde_json::Value>> = serde_saphyr::from_str(&written).unwrap();
        // A text that is read as a number or as nothing is not the text.
        let expected: BTreeMap<String, Vec<serde_json::Value>> =
            value.into_iter().map(|(k, v)| (k, v.into_iter().map(Into::into).collect())).collect();
        prop_assert_eq!(read, expected, "{}", written);
    }

    #[test]
    fn kubernetes_expands_nothing_of_the_user_s(text in nasty()) {
        let known = BTreeMap::from([("HOME", "wrong"), ("PATH", "wrong")]);
        prop_assert_eq!(expanded(&literal(&text), &known), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_shell_gives_back_every_word(texts in prop::collection::vec(nasty(), 1..12)) {
        let mut args = vec!["%s\\0".to_owned()];
        args.extend(texts.iter().cloned());
        let env = BTreeMap::from([("NOTE".to_owned(), EnvValue::Set(texts[0].clone()))]);
        let line = command(&process(env, args));
        let out = Command::new("sh").args(["-c", &line]).output().unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        let words: Vec<&str> = said.split_terminator('\0').collect();
        prop_assert_eq!(words, texts);
    }

    #[test]
    fn python_gives_back_every_text(texts in prop::collection::vec(nasty(), 1..12)) {
        let listed = texts.iter().map(|t| super::modal::python(t)).collect::<Vec<_>>().join(", ");
        let program = format!("import sys\nfor t in [{listed}]:\n    sys.stdout.buffer.write(t.encode() + b'\\0')");
        let out = Command::new("python3").args(["-c", &program]).output().unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        let read: Vec<&str> = said.split_terminator('\0').collect();
        prop_assert_eq!(read, texts, "{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn the_platform_s_own_variables_are_left_to_it() {
    let known = BTreeMap::from([("POD_IP", "10.1.1.1"), ("LWS_WORKER_INDEX", "3")]);
    let said = expanded(&literal("$(POD_IP):$5 $(LWS_WORKER_INDEX)"), &known);
    assert_eq!(said, "10.1.1.1:$5 3");
}

#[test]
fn plain_words_stay_readable() {
    assert_eq!(quote("--max-num-seqs"), "--max-num-seqs");
    assert_eq!(quote(""), "''");
    assert_eq!(quote("it's"), r"'it'\''s'");
}

#[test]
fn what_a_platform_cannot_serve_is_said_with_a_way_out() {
    let cases = [
        "platform = \"k8s\"\nengine = \"vllm\"",
        "platform = \"k8s\"\nengine = \"vllm\"\nversion = \"1\"\nlauncher = \"mp\"\ntp = 4\nplace = [\"a:0-1 + b:0-1\"]",
        "platform = \"k8s\"\nengine = \"dynamo-vllm\"\nversion = \"1\"",
        "platform = \"lws\"\nengine = \"vllm\"\nversion = \"1\"\ntp = 2",
        "platform = \"lws\"\nengine = \"vllm\"\nversion = \"1\"\nlauncher = \"ray\"\ntp = 4\nplace = [\"a:0-1 + b:0-1\"]",
        "platform = \"dgd\"\nengine = \"vllm\"\nversion = \"1\"",
        "platform = \"dgd\"\nengine = \"dynamo-vllm\"\nversion = \"1\"\nport = 9000",
        "platform = \"kuberay\"\nengine = \"vllm\"\nversion = \"1\"",
        "platform = \"kuberay\"\nengine = \"ray-serve-llm\"\nimage = \"rayproject/ray-llm:nightly\"",
        "platform = \"modal\"\nengine = \"vllm\"\ngpu = \"H100\"",
        "platform = \"modal\"\nengine = \"vllm\"\nversion = \"1\"",
        "platform = \"modal\"\nengine = \"vllm\"\nversion = \"1\"\ngpu = \"H100\"\nparams = { max_containers = 3 }",
        "platform = \"slurm\"\nengine = \"vllm\"\nlauncher = \"mp\"\ntp = 4\nplace = [\"a:0-1 + b:0-1\"]",
        "platform = \"slurm\"\nengine = \"vllm\"\nlauncher = \"ray\"\nimage = \"i\"\ntp = 4\nplace = [\"a:0-1 + b:0-1\"]",
        "platform = \"slurm\"\nengine = \"ray-serve-llm\"\nplace = [\"a:0\", \"b:0\"]\nreplicas = 2",
        "platform = \"slurm\"\nengine = \"dynamo-vllm\"\nimage = \"i\"\nplace = [\"c:0\"]",
        "platform = \"skypilot\"\nengine = \"vllm\"\nversion = \"1\"\nreplicas = 2\ngpu = \"H100\"",
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|case| {
            let error = one(case).unwrap_err();
            format!("{error}\n  hint: {}", error.hint)
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_load_is_admitted_whole() {
    let base =
        "engine = \"vllm\"\nversion = \"1\"\ngpu = \"H100\"\nplatform = \"modal\"\nreplicas = 4";
    assert!(text(base).contains("max_inputs=8)"), "30 in flight over 4 containers");
    let ray = "engine = \"ray-serve-llm\"\nplatform = \"kuberay\"\nimage = \"ray:2.52.0\"";
    assert!(text(ray).contains("max_ongoing_requests: 30"));
}

#[test]
fn neighbours_that_are_alike_share_a_set_and_a_port() {
    let base = "engine = \"vllm\"\nversion = \"1\"\nplatform = \"k8s\"\nreplicas = 3";
    let alike = text(base);
    assert_eq!(alike.matches("kind: StatefulSet").count(), 1);
    assert!(alike.contains("replicas: 3") && !alike.contains("8001"), "{alike}");
    let placed = text(&format!("{base}\nplace = [\"a:0\", \"a:1\", \"b:0\"]"));
    assert_eq!(placed.matches("kind: StatefulSet").count(), 2);
    assert!(placed.contains("replicas: 2") && placed.contains("node: a"), "{placed}");
    assert!(!placed.contains("CUDA_VISIBLE_DEVICES"), "the device plugin gives the GPUs");
}

#[test]
fn the_load_generator_is_given_every_instance() {
    let base =
        "engine = \"vllm\"\nversion = \"1\"\nplatform = \"k8s\"\nparams = { namespace = \"llm\" }";
    assert_eq!(one(base).unwrap().endpoints, ["http://one.llm:8000"]);
    let three = format!("{base}\nreplicas = 3\nplace = [\"a:0\", \"a:1\", \"b:0\"]");
    let pods = ["one-0-0.one-pods", "one-0-1.one-pods", "one-1-0.one-pods"];
    let urls: Vec<String> = pods.iter().map(|pod| format!("http://{pod}.llm:8000")).collect();
    assert_eq!(one(&three).unwrap().endpoints, urls);
    // In the order of the instances, so that what is measured of an entry is its instance's.
    let apart = format!("{base}\nreplicas = 3\nplace = [\"a:0\", \"b:0\", \"a:1\"]");
    let urls = [0, 1, 2].map(|set| format!("http://one-{set}-0.one-pods.llm:8000"));
    assert_eq!(one(&apart).unwrap().endpoints, urls);
    let groups = "engine = \"vllm\"\nversion = \"1\"\nplatform = \"lws\"\nlauncher = \"mp\"\ntp = 4\nreplicas = 2\n\
                  place = [\"a:0-1 + b:0-1\", \"a:2-3 + b:2-3\"]";
    let leaders = ["http://one-0.one:8000", "http://one-1.one:8000"];
    assert_eq!(one(groups).unwrap().endpoints, leaders);
}

#[test]
fn a_name_in_a_comment_stays_in_it() {
    let mut plan = planned("platform = \"k8s\"\nengine = \"vllm\"\nversion = \"1\"");
    plan.name = "a\nkind: Pod".to_owned();
    let text = render(&plan).unwrap().remove(0).files.remove(0).text;
    assert!(text.starts_with("# Deployment one of experiment a kind: Pod, "), "{text}");
}

#[test]
fn an_inference_pool_says_what_it_is_not_told() {
    let all = "gateway_class = \"istio\", picker_image = \"r/p:1\"";
    for (params, reason, hint) in [
        (
            "picker_image = \"r/p:1\"".to_owned(),
            "no class of its gateway",
            "kubectl get gatewayclasses",
        ),
        (
            "gateway_class = \"istio\"".to_owned(),
            "no image of its endpoint picker",
            "picker_image = ",
        ),
        (
            format!("{all}, picker = [\"queue-scorer\"]"),
            "no scorer with a weight",
            "prefix-cache-scorer=3",
        ),
        (format!("{all}, expose = \"NodePort\""), "expose means nothing", "remove it"),
    ] {
        let error = one(&format!(
            "platform = \"inferencepool\"\nengine = \"vllm\"\nversion = \"1\"\nparams = {{ {params} }}"
        ))
        .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.hint.contains(hint), "{}", error.hint);
    }
}

#[test]
fn a_client_that_could_not_run_inside_is_refused() {
    let k8s = "platform = \"k8s\"\nengine = \"vllm\"\nversion = \"1\"";
    let image = "client_image = \"r/s:1\"";
    let refused = |plan: &Plan| {
        super::client(plan, &plan.deployments[0], "", &Default::default()).unwrap_err()
    };
    let error = refused(&planned(&format!("{k8s}\nparams = {{ {image}, context = \"lab\" }}")));
    let says = error.to_string().contains("names a context");
    assert!(says && !error.hint.is_empty(), "{error}");
    let mut plan = planned(&format!("{k8s}\nparams = {{ {image} }}"));
    plan.points[0].workload.source = scalebeam_model::workload::Source::File {
        file: "prompts.jsonl".to_owned(),
        format: Default::default(),
        pick: Default::default(),
        max_tokens: None,
    };
    let error = refused(&plan);
    assert!(
        error.to_string().contains("a file that the Job would not have: prompts.jsonl"),
        "{error}"
    );
    let files = [("prompts.jsonl".to_owned(), "{\"prompt\": \"no\"}".to_owned())].into();
    let file = super::client(&plan, &plan.deployments[0], "", &files).unwrap().unwrap();
    assert!(file.text.contains(r#"file-0: "{\"prompt\": \"no\"}""#), "{}", file.text);
    let place = "- key: file-0\n            path: prompts.jsonl";
    assert!(file.text.contains(place), "{}", file.text);
}

#[test]
fn one_job_for_deployments_on_several_platforms_has_each_right_once() {
    let params = "params = { client_image = \"i\" }";
    let plan = planned(&format!(
        "platform = \"k8s\"\nengine = \"vllm\"\nversion = \"1\"\n{params}\n[[deploy]]\nname = \"ray\"\n\
         platform = \"kuberay\"\nengine = \"ray-serve-llm\"\nimage = \"r:2.52.0\"\n{params}"
    ));
    let deployments: Vec<_> = plan.deployments.iter().collect();
    let files = Default::default();
    let inside =
        super::Inside { plan: &plan, deployments: &deployments, experiment: "", files: &files };
    let words = ["scalebeam", "inside", "run"].map(str::to_owned);
    let text = super::client::job(&inside, "client-1", &words).unwrap().text;
    let role = text.split("---\n").find(|part| part.contains("kind: Role\n")).unwrap();
    for resource in ["deployments", "rayservices", "services", "pods/exec"] {
        let line = format!("  - {resource}\n");
        assert_eq!(role.matches(&line).count(), 1, "{resource} in {role}");
    }
    assert_eq!(text.matches("kind: Job\n").count(), 1, "{text}");
}

/// What is behind the options of a job script, and begins with `from`.
fn job_from(deploy: &str, from: &str) -> String {
    let hosts =
        "[host.a]\ngpus = 8\naddr = \"10.0.0.1\"\n[host.b]\ngpus = 8\naddr = \"10.0.0.2\"\n";
    let script = render(&planned_on(hosts, deploy)).unwrap().remove(0).files.remove(0).text;
    script[script.find(from).unwrap()..].to_owned()
}

#[test]
fn ranks_of_sglang_are_steps_of_a_job() {
    let deploy = "platform = \"slurm\"\nengine = \"sglang\"\nlauncher = \"mp\"\ntp = 4\n\
                  place = [\"a:0-1 + b:0-1\"]";
    insta::assert_snapshot!(job_from(deploy, "step one/"));
}

#[test]
fn a_router_and_its_pools_are_steps_of_a_job_that_ends_stage_by_stage() {
    let deploy = "platform = \"slurm\"\nengine = \"vllm\"\n\
                  [[deploy.pool]]\nrole = \"prefill\"\nworkers = 1\ntp = 2\nplace = [\"a:0-1\"]\n\
                  [[deploy.pool]]\nrole = \"decode\"\nworkers = 1\nplace = [\"b:0\"]";
    insta::assert_snapshot!(job_from(deploy, "step one/"));
}

/// Addresses are told to a router, and to Dynamo's parts, before Slurm has given any node.
#[test]
fn a_router_in_a_job_needs_to_know_where_its_instances_are() {
    let refused = |deploy: &str| {
        let text = format!(
            "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[host.a]\ngpus = 8\n[host.b]\ngpus = 8\naddr = \"10.0.0.2\"\n\
             [host.c]\ngpus = 8\naddr = \"10.0.0.3\"\n[[deploy]]\nname = \"one\"\nplatform = \"slurm\"\n{deploy}\n\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n"
        );
        Experiment::parse(&text, "t.toml", engines()).unwrap_err().0.remove(0).message
    };
    let routed = "engine = \"vllm\"\nparams = { router = \"vllm-router\" }";
    let dynamo = "engine = \"dynamo-mocker\"";
    let said = [
        refused(&format!("{routed}\nreplicas = 2")),
        refused(&format!("{routed}\nplace = [\"a:0\"]")),
        refused(dynamo),
        refused(&format!("{dynamo}\nplace = [\"b:0\"]\ninfra = {{ host = \"a\" }}")),
        refused(&format!("{dynamo}\nplace = [\"b:0\", \"c:0\"]\nreplicas = 2")),
    ];
    let said = said.join("\n");
    insta::assert_snapshot!(said, @r#"
    a router is told where its instances are before Slurm gives any node: name nodes by `place`, each with addr in its [host.NAME]
    a router reaches its instances at addresses: add addr to [host.a]
    Dynamo's frontend is told where its instances are before Slurm gives any node: name nodes by `place`, each with addr in its [host.NAME]
    Dynamo's frontend reaches its instances at addresses: add addr to [host.a]
    instances on several hosts cannot be discovered through files: say infra = { host = "..", etcd = 2379, nats = 4222 }
    "#);
}

#[test]
fn raylets_and_the_application_of_ray_serve_are_steps_of_a_job() {
    let deploy = "platform = \"slurm\"\nengine = \"ray-serve-llm\"\nreplicas = 2\nport = 8000\n\
                  place = [\"a:0\", \"b:0\"]\nparams = { bin = \"/opt/it's/bin/serve\" }";
    insta::assert_snapshot!(job_from(deploy, "scratch_name="));
}

/// Frontend, etcd, NATS and workers: what they write on a node is the job's, and goes with the last of them.
#[test]
fn dynamo_s_parts_are_steps_of_a_job() {
    let deploy = "platform = \"slurm\"\nengine = \"dynamo-mocker\"\nport = 8000\n\
                  infra = { host = \"a\", etcd = 2379, nats = 4222, frontend = 8000 }\n\
                  [[deploy.pool]]\nrole = \"prefill\"\nworkers = 1\nplace = [\"a:0\"]\n\
                  [[deploy.pool]]\nrole = \"decode\"\nworkers = 1\nplace = [\"b:0\"]";
    insta::assert_snapshot!(job_from(deploy, "#SBATCH --nodelist"));
}

/// A worker's port is on its node's loopback alone, so it is asked there.
#[test]
fn a_server_and_its_rpc_workers_are_steps_of_a_job() {
    let deploy = "platform = \"slurm\"\nengine = \"llama.cpp\"\nreplicas = 2\nport = 8080\n\
                  params = { rpc_workers = 2, server = \"/opt/llama/llama-server\" }";
    insta::assert_snapshot!(job_from(deploy, "until_holds() {"));
}

/// Each pool has its own flags, variables and GPUs, whichever process reads them.
#[test]
fn pools_of_ray_serve_keep_what_is_theirs() {
    let deploy = "platform = \"slurm\"\nengine = \"ray-serve-llm\"\nargs = [\"--max-num-seqs\", \"8\"]\n\
                  env = { BOTH = \"1\", MINE = \"no\" }\n\
                  [[deploy.pool]]\nrole = \"prefill\"\nworkers = 2\ntp = 2\nplace = [\"a:0-1\", \"a:2-3\"]\n\
                  [[deploy.pool]]\nrole = \"decode\"\nworkers = 1\nplace = [\"a:4\"]\n\
                  args = [\"--max-num-seqs\", \"64\"]\nenv = { MINE = \"yes\" }";
    let hosts = "[host.a]\ngpus = 8\naddr = \"10.0.0.1\"\n";
    let plan = planned_on(hosts, deploy);
    let app = plan.deployments[0].processes.iter().find(|p| !p.files.is_empty()).unwrap();
    let config: serde_json::Value = serde_json::from_str(&app.files["serve.json"]).unwrap();
    insta::assert_json_snapshot!(config["applications"][0]);
}

/// A second pool of a role would be started with the flags of the first.
#[test]
fn pools_of_one_role_are_alike_in_ray_serve() {
    let refused = |second: &str| {
        let pool = |role: &str, more: &str| {
            format!("[[deploy.pool]]\nrole = \"{role}\"\nworkers = 1\n{more}\n")
        };
        let text = format!(
            "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\n[host.a]\ngpus = 3\naddr = \"10.0.0.1\"\n\
             [[deploy]]\nname = \"one\"\nplatform = \"slurm\"\nengine = \"ray-serve-llm\"\n{}{}{}\
             [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 8\nosl = 8\n\
             [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n",
            pool("prefill", "place = [\"a:0\"]"),
            pool("decode", "place = [\"a:1\"]"),
            pool("decode", second),
        );
        Experiment::parse(&text, "t.toml", engines()).err().map(|e| e.0[0].message.clone())
    };
    assert_eq!(refused("place = [\"a:2\"]"), None);
    let alike = "replicas of Ray Serve are alike: give all instances of a role one shape, and the same args and env";
    for second in ["args = [\"--enforce-eager\"]", "env = { MINE = \"yes\" }"] {
        assert_eq!(refused(&format!("place = [\"a:2\"]\n{second}")).as_deref(), Some(alike));
    }
}

/// The text that a step of these tests reads.
const TEXT: &str = "{\"a\": \"it's $HOME\"}";

/// `command` as step `number` of a node, which has a file.
fn step(number: u32, command: &str) -> String {
    let text = quote(TEXT);
    format!("SLURM_STEP_ID={number} bash -c \"$in_scratch\" step x.json {text} -- {command}")
}

/// Runs `script` as that of a job whose folders are below `tmp`.
fn in_scratch(tmp: &Path, script: &str) -> Output {
    let begins = super::slurm::script::SCRATCH.replace("$SCRATCH_ROOT", &tmp.display().to_string());
    let script = format!("SLURM_JOB_NAME=one-0123456789ab SLURM_JOB_ID=17\n{begins}{script}");
    Command::new("bash").args(["-c", &script]).output().unwrap()
}

/// What a step runs is what the plan says: files are where the command looks for them, and words are as they were.
#[test]
fn a_step_has_its_files_before_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = quote("{scratch}/x.json").replace("{scratch}", super::slurm::script::SCRATCH_PATH);
    let ran = in_scratch(dir.path(), &step(0, &format!("cat {path}")));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), TEXT, "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// One that ends while another of the node is still there leaves the folder to it.
#[test]
fn the_last_step_of_a_node_takes_its_folder_along() {
    let dir = tempfile::tempdir().unwrap();
    let sh = |text: &str| format!("sh -c {}", quote(&format!("cd \"$SCALEBEAM_SCRATCH\"; {text}")));
    let first = sh("until [ -e second ]; do sleep 0.05; done; echo >first");
    let second =
        sh("echo >second; until [ -e first ] && [ ! -d .steps/0 ]; do sleep 0.05; done; ls");
    let script = format!("{} &\n{}\nwait", step(0, &first), step(1, &second));
    let ran = in_scratch(dir.path(), &script);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "first\nsecond\nx.json\n", "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A signal goes to all processes of a step: what it runs ends as it would without the shell around it.
#[test]
fn a_step_that_is_told_to_end_ends_with_the_status_of_its_command_and_clears_up() {
    let dir = tempfile::tempdir().unwrap();
    let ran = in_scratch(dir.path(), &step(0, "sh -c 'kill -TERM $PPID; exit 7'"));
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Its name can be foretold, and `/tmp` is everybody's.
#[test]
fn a_folder_that_somebody_else_made_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("sb-0123456789ab-17")).unwrap();
    let ran = in_scratch(dir.path(), &step(0, "echo begun"));
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("is not ours"), "{ran:?}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

/// Slurm gives each node of a job the same, so nothing may be on one that has less.
#[test]
fn a_host_of_a_job_with_too_few_gpus_is_refused() {
    let hosts = "[host.a]\ngpus = 8\naddr = \"10.0.0.1\"\n[host.c]\naddr = \"10.0.0.3\"\n";
    let refused = |engine: &str| {
        let deploy = format!(
            "platform = \"slurm\"\nengine = \"{engine}\"\nplace = [\"a:1\"]\n\
             infra = {{ host = \"c\", etcd = 2379, nats = 4222, frontend = 8000 }}"
        );
        let plan = planned_on(hosts, &deploy);
        render(&plan).err().map(|e| format!("{e}; {}", e.hint))
    };
    let said = refused("dynamo-vllm").unwrap();
    for words in ["2 GPUs on each of its nodes, and host c has 0", "put infra on a node with GPUs"]
    {
        assert!(said.contains(words), "no {words}: {said}");
    }
    assert_eq!(refused("dynamo-mocker"), None, "it needs none");
}

/// In a pod files lie where the experiment finds them, under paths without detours.
#[test]
fn files_beside_an_experiment_may_be_named_with_a_dot() {
    let mut plan = planned("platform = \"k8s\"\nengine = \"vllm\"\nversion = \"1\"");
    plan.model.tokenizer = Some("./a/./tokenizer.json".to_owned());
    let files = super::files_read(&plan, &[&plan.deployments[0]]);
    assert_eq!(files.into_iter().collect::<Vec<_>>(), ["a/tokenizer.json"]);
}

/// Kubernetes lets nobody give rights that he does not have.
#[test]
fn a_client_of_a_pool_may_do_what_it_lets_the_picker_do() {
    let plan = planned(
        "platform = \"inferencepool\"\nengine = \"vllm\"\nversion = \"1\"\n\
         params = { client_image = \"i\", gateway_class = \"c\", picker_image = \"p\" }",
    );
    let file =
        super::client(&plan, &plan.deployments[0], "", &Default::default()).unwrap().unwrap();
    let role = file.text.split("---\n").find(|part| part.contains("kind: Role\n")).unwrap();
    let (_, rules) = role.split_once("rules:\n").unwrap();
    insta::assert_snapshot!(rules);
}

//! `check`: the acceptance set is read as it should be, and every mistake is refused with a useful line.

use crate::support::{Lab, emulated, root, say};

fn base() -> String {
    std::fs::read_to_string(root().join("experiments/quickstart.toml")).unwrap()
}

/// What `check` says of the quickstart with `from` replaced by `to`, without the file's path.
fn refused(from: &str, to: &str) -> String {
    let text = base();
    assert!(text.contains(from), "{from} is not in the quickstart");
    let lab = Lab::new(&text.replacen(from, to, 1));
    let said = lab.say("check", &[]).expect_code(2);
    assert_eq!(said.stdout, "");
    said.stderr.replace(&lab.file().display().to_string(), "FILE")
}

#[test]
fn the_seeds_expand_to_what_they_mean() {
    for (file, deployments, points) in [
        ("seed1-4gpu-vs-8gpu", 3, 15),
        ("seed2-kuberay-scaling", 9, 9),
        ("seed3-dynamo-pd-multinode", 3, 24),
        ("seed4-modal-gpu-users", 3, 6),
        ("seed5-course-week5", 6, 38),
        ("quickstart", 3, 6),
        ("real-cpu", 3, 6),
        ("real-vllm-cpu", 7, 14),
        ("real-vllm-slurm", 4, 4),
        ("real-vllm-ssh", 4, 4),
        ("real-ray-serve", 3, 3),
        ("real-vllm-dp", 4, 4),
        ("real-vllm-pd", 3, 3),
        ("real-dynamo", 2, 4),
        ("real-dynamo-vllm", 2, 2),
        ("load-shapes", 1, 6),
        ("capacity", 2, 0),
    ] {
        let path = root().join(format!("experiments/{file}.toml"));
        let json = say(["check", path.to_str().unwrap(), "--json"]).expect_code(0).json();
        let got = (json["deployments"].as_u64(), json["points"].as_u64());
        assert_eq!(got, (Some(deployments), Some(points)), "{file}");
    }
}

#[test]
fn a_misspelt_key_names_the_nearest() {
    insta::assert_snapshot!(refused("warmup      = 8", "warmpu      = 8"), @"
    error: a problem in the experiment file

    FILE:63:1: unknown key 'warmpu'
      63 | warmpu      = 8
         | ^
      hint: did you mean 'warmup'?
    ");
}

#[test]
fn a_gpu_taken_twice_names_both() {
    insta::assert_snapshot!(
        refused("place    = [\"head:0-3\", \"worker:0-3\"]", "place    = [\"head:0-3\", \"head:0-3\"]"),
        @r#"
    error: a problem in the experiment file

    FILE:46:25: deploy[3].place[1]: GPU 0 of head taken twice (aggregated)
      46 | place    = ["head:0-3", "head:0-3"]
         |                         ^
      hint: each GPU holds one instance; see deploy[3]
    "#
    );
}

#[test]
fn a_gpu_taken_by_prefill_and_decode_names_both() {
    let seed =
        std::fs::read_to_string(root().join("experiments/seed3-dynamo-pd-multinode.toml")).unwrap();
    // Seed 3's README puts decode on node0 as well.
    let lab = Lab::new(&seed.replacen("place   = [\"node1:4-7\"]", "place   = [\"node0:4-7\"]", 1));
    let said = lab.say("check", &[]).expect_code(2);
    insta::assert_snapshot!(said.stderr.replace(&lab.file().display().to_string(), "FILE"), @r#"
    error: a problem in the experiment file

    FILE:40:12: deploy[0].pool[1].place[0]: GPU 4 of node0 taken twice (prefill and decode)
      40 | place   = ["node0:4-7"]
         |            ^
      hint: each GPU holds one instance; see deploy[0].pool[1]
    "#);
}

#[test]
fn an_instance_over_hosts_must_say_what_joins_it() {
    let seed = std::fs::read_to_string(root().join("experiments/seed1-4gpu-vs-8gpu.toml")).unwrap();
    let lab = Lab::new(&seed.replacen("launcher = \"ray\"", "# no launcher", 1));
    let said = lab.say("check", &[]).expect_code(2);
    insta::assert_snapshot!(said.stderr.replace(&lab.file().display().to_string(), "FILE"), @r#"
    error: a problem in the experiment file

    FILE:38:1: deploy[1].launcher: an instance spans hosts, say launcher
      38 | [[deploy]]
         | ^
      hint: launcher = "mp" (--nnodes, --node-rank) or "ray" (a Ray cluster)
    "#);
}

/// Each as it is said of a file with `change` made to the deployment with hybrid balancing.
#[test]
fn a_balance_over_ranks_that_has_nothing_to_spread_is_refused() {
    let file = std::fs::read_to_string(root().join("experiments/real-vllm-dp.toml")).unwrap();
    let hybrid = "dp         = 4\ndp_balance = \"hybrid\"\nplace      = [\"a:0-1 + b:0-1\"]";
    let said = |change: &str| {
        let lab = Lab::new(&file.replacen(hybrid, change, 1));
        let stderr = lab.say("check", &[]).expect_code(2).stderr;
        let told = |line: &&str| line.contains("deploy[2]") || line.contains("hint:");
        stderr
            .replace(&lab.file().display().to_string(), "FILE")
            .lines()
            .filter(told)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let all = [
        "dp_balance = \"hybrid\"\nplace = [\"a:0\"]",
        "dp = 2\ndp_balance = \"hybrid\"\nplace = [\"a:0-1\"]",
        "dp = 2\ndp_balance = \"hybrid\"\nplace = [\"a:0 + b:0\"]",
        "dp = 4\ndp_balance = \"hybrid\"\nplatform = \"slurm\"\nplace = [\"a:0-1 + b:0-1\"]",
        "engine = \"sglang\"\ndp = 2\ndp_balance = \"internal\"\nplace = [\"a:0-1\"]",
        "dp = 4\ndp_balance = \"even\"\nplace = [\"a:0-1 + b:0-1\"]",
    ];
    insta::assert_snapshot!(all.map(said).join("\n"), @r#"
    FILE:58:1: deploy[2].dp_balance: there is one data-parallel rank, so nothing is spread over ranks
      hint: say dp too, or leave dp_balance out
    FILE:59:1: deploy[2].dp_balance: hybrid balancing has a server a host, and the instance is on one
      hint: place it over hosts, as "a:0-3 + b:0-3", or say "internal"
    FILE:59:1: deploy[2].dp_balance: a host has one rank, so its server has nothing to choose from
      hint: vLLM takes that for external balancing: say dp_balance = "external"
    FILE:59:1: deploy[2].dp_balance: dp_balance = "hybrid" is not planned on platform slurm
      hint: use platform = "local" or "ssh", or replicas in place of dp
    FILE:55:1: deploy[2].params.bin: unknown parameter 'bin' of sglang
      hint: known here are python, router, router_bin, router_args
    FILE:60:1: deploy[2].dp_balance: engine sglang does not say what spreads over ranks
      hint: leave it out; it is vLLM's
      hint: known are internal, hybrid, external
    "#);
}

#[test]
fn a_flag_that_the_shape_decides_is_refused() {
    insta::assert_snapshot!(
        refused("tp       = 4\n", "tp       = 4\nargs     = [\"--seed\", \"3\", \"--tp\", \"2\"]\n"),
        @"
    error: 3 problems in the experiment file

    FILE:32:1: deploy[1].args[2]: '--tp' follows from the shape and must not be given in args
      32 | [[deploy]]
         | ^
      hint: use the key 'tp' of [[deploy]] or [[deploy.pool]]

    FILE:37:1: deploy[2].args[2]: '--tp' follows from the shape and must not be given in args
      37 | [[deploy]]
         | ^
      hint: use the key 'tp' of [[deploy]] or [[deploy.pool]]

    FILE:43:1: deploy[3].args[2]: '--tp' follows from the shape and must not be given in args
      43 | [[deploy]]
         | ^
      hint: use the key 'tp' of [[deploy]] or [[deploy.pool]]
    "
    );
}

#[test]
fn a_shape_that_does_not_fit_its_place_is_refused() {
    insta::assert_snapshot!(refused("pp      = 2", "pp      = 4"), @r#"
    error: a problem in the experiment file

    FILE:40:12: deploy[2].place[0]: the place has 8 GPUs, the shape needs 16 (tp 4 x pp 4 x dp 1)
      40 | place   = ["head:0-3 + worker:0-3"]
         |            ^
      hint: change the ids, or tp, pp or dp
    "#);
}

#[test]
fn a_value_without_its_unit_is_refused() {
    insta::assert_snapshot!(refused("timeout     = \"60s\"", "timeout     = 60"), @r#"
    error: a problem in the experiment file

    FILE:64:15: the number 60 has no unit; expected a span with its unit, as "30s"
      64 | timeout     = 60
         |               ^
    "#);
}

#[test]
fn a_reference_to_nothing_names_the_nearest() {
    insta::assert_snapshot!(refused("workload    = \"chat\"", "workload    = \"caht\""), @r#"
    error: a problem in the experiment file

    FILE:59:1: load[0].workload: no workload 'caht'
      59 | workload    = "caht"
         | ^
      hint: did you mean 'chat'?
    "#);
}

#[test]
fn an_unknown_parameter_names_the_nearest() {
    insta::assert_snapshot!(refused("inter_node_gbps", "inter_node_gps"), @"
    error: 3 problems in the experiment file

    FILE:31:1: deploy[1].params.inter_node_gps: unknown parameter 'inter_node_gps' of emulated
      31 | [[deploy]]
         | ^
      hint: did you mean 'inter_node_gbps'?

    FILE:36:1: deploy[2].params.inter_node_gps: unknown parameter 'inter_node_gps' of emulated
      36 | [[deploy]]
         | ^
      hint: did you mean 'inter_node_gbps'?

    FILE:42:1: deploy[3].params.inter_node_gps: unknown parameter 'inter_node_gps' of emulated
      42 | [[deploy]]
         | ^
      hint: did you mean 'inter_node_gbps'?
    ");
}

#[test]
fn an_unknown_metric_names_the_nearest() {
    insta::assert_snapshot!(refused("metric = \"success_rate\"", "metric = \"sucess_rate\""), @r#"
    error: a problem in the experiment file

    FILE:80:1: expect[0].metric: unknown metric 'sucess_rate'
      80 | metric = "sucess_rate"
         | ^
      hint: did you mean 'success_rate'?
    "#);
}

/// The whole list is longer than a screen.
#[test]
fn a_name_that_is_like_no_metric_gets_a_few_that_are() {
    let said = refused("metric = \"success_rate\"", "metric = \"zzz_tps_zzz\"");
    let hint = said.lines().find(|l| l.contains("hint:")).unwrap();
    assert!(
        hint.contains("names like it are ") && hint.contains("output_tps") && hint.len() < 200,
        "{said}"
    );
}

#[test]
fn a_bound_that_is_no_number_is_refused() {
    let said = refused("value  = 1.0", "value  = nan");
    assert!(said.contains("expect[0].value: nothing is measured that could be == NaN"), "{said}");
}

#[test]
fn numbers_that_no_emulated_engine_can_have_are_refused_with_their_range() {
    let load = "mode = \"serial\"\nrequests = 4\n";
    for (params, part) in [
        ("speed = 0", "params.speed: 'speed' must be a number from 0.000001 to 1000000000"),
        ("speed = 1e308", "'speed' must be a number from"),
        ("speed = nan", "'speed' must be a number from"),
        ("speed = -1.0", "'speed' must be a number from"),
        ("ttft = \"5ms\", slots = 0", "'slots' must be a whole number from 1 to 1000000000"),
    ] {
        let lab = Lab::new(&emulated(&["one"], params, load));
        let said = lab.say("check", &[]).expect_code(2);
        let all = said.stdout + &said.stderr;
        assert!(all.contains(part) && all.contains("experiment.toml:"), "{part}: {all}");
    }
}

#[test]
fn a_model_that_the_emulator_does_not_know_is_told_before_it_is_started() {
    let load = "mode = \"serial\"\nrequests = 4\n";
    let unknown = |params: &str| {
        let text = emulated(&["one"], params, load);
        Lab::new(&text.replace("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instrukt"))
    };
    let said = unknown("speed = 1.0").say("check", &[]).expect_code(2);
    let all = said.stdout + &said.stderr;
    let want = "emulates the model 'Qwen/Qwen2.5-7B-Instrukt', which is in no catalogue";
    assert!(all.contains(want) && all.contains("near it are Qwen2.5-7B-Instruct"), "{all}");
    unknown("ttft = \"5ms\", itl = \"1ms\"").say("check", &[]).expect_code(0);
}

#[test]
fn a_model_that_its_emulated_gpus_cannot_share_is_told_before_it_is_started() {
    let text = emulated(&["one"], "speed = 1.0", "mode = \"serial\"\nrequests = 4\n");
    let lab = Lab::new(&text.replace("place = [\"box:0\"]", "tp = 8\nplace = [\"box:0-7\"]"));
    let said = lab.say("check", &[]).expect_code(2);
    let all = said.stdout + &said.stderr;
    let want = "it cannot be emulated: tp is 8, but it has to divide the 28 attention heads";
    assert!(all.contains(want) && all.contains("hint: give it another tp"), "{all}");
}

#[test]
fn an_emulated_gpu_that_is_in_no_catalogue_is_told_with_those_that_are() {
    let (from, to) = ("gpu  = \"H100-SXM-80G\"", "gpu  = \"H999-SXM-80G\"");
    let said = refused(from, to);
    assert!(said.contains("emulates the GPU 'H999-SXM-80G', which is in no catalogue"), "{said}");
    assert!(said.contains("near it are ") && said.contains("H100-SXM"), "{said}");
}

#[test]
fn a_secret_is_refused_and_not_repeated() {
    let said = refused("[host.head]", "[env]\nHF_TOKEN = \"hf_verysecret\"\n[host.head]");
    assert!(said.contains("env.HF_TOKEN: 'HF_TOKEN' looks like a secret"), "{said}");
}

#[test]
fn all_problems_are_found_in_one_pass() {
    let text = base()
        .replacen("\nextends = \"base\"", "\nextends = \"bas\"", 1)
        .replacen("workload    = \"chat\"", "workload    = \"chatt\"", 1)
        .replacen("op     = \"==\"", "op     = \"=\"", 1);
    let lab = Lab::new(&text);
    let json = lab.say("check", &["--json"]).expect_code(2).json();
    let keys: Vec<_> =
        json["problems"].as_array().unwrap().iter().map(|p| p["key"].clone()).collect();
    for key in ["deploy[1].extends", "load[0].workload", "expect[0].op"] {
        assert!(keys.iter().any(|k| k == key), "{key} is not among {keys:?}");
    }
    assert!(json["problems"][0]["line"].as_u64().unwrap() > 1);
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_refused() {
    let lab = Lab::new("schema = 1\nname = \"x\nmodel");
    let said = lab.say("check", &[]).expect_code(2);
    assert!(said.stderr.contains("experiment.toml:3:6"), "{}", said.stderr);
    let said = say(["check", "/no/such/file.toml"]).expect_code(2);
    assert!(said.stderr.contains("cannot read /no/such/file.toml"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: name an experiment file"));
}

#[test]
fn a_load_that_contradicts_itself_is_told_where() {
    let load = "mode = \"open\"\nrate = \"5/s\"\nburstiness = 0.5\nramp_up = \"5s\"\nrequests = 9\n\
                profile = { kind = \"sine\", mean = \"5/s\", amplitude = \"9/s\", period = \"1m\" }\n\
                cancel = { share = 2.0, after = \"2s\" }";
    let lab = Lab::new(&emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", load));
    let said = lab.say("check", &[]).expect_code(2);
    insta::assert_snapshot!(said.stderr.replace(&lab.file().display().to_string(), "FILE"), @r#"
    error: 5 problems in the experiment file

    FILE:28:1: load[0].burstiness: 'burstiness' has no meaning with arrival = "poisson"
      28 | burstiness = 0.5
         | ^
      hint: leave it out; it belongs to arrival = gamma

    FILE:29:1: load[0].ramp_up: 'ramp_up' has no meaning in open mode
      29 | ramp_up = "5s"
         | ^
      hint: it belongs to mode closed

    FILE:31:1: load[0].profile: 'rate' is given as well
      31 | profile = { kind = "sine", mean = "5/s", amplitude = "9/s", period = "1m" }
         | ^
      hint: keep one of the two

    FILE:31:42: load[0].profile.amplitude: the amplitude of 9.00/s is above the mean of 5.00/s
      31 | profile = { kind = "sine", mean = "5/s", amplitude = "9/s", period = "1m" }
         |                                          ^
      hint: a rate below zero does not exist; lower it

    FILE:32:12: load[0].cancel.share: 'share' must be above 0 and at most 1
      32 | cancel = { share = 2.0, after = "2s" }
         |            ^
      hint: 0.1 is one request in ten; leave 'cancel' out for none
    "#);
}

#[test]
fn a_point_with_a_rate_of_its_own_and_a_load_without_are_told() {
    let load = "mode = \"open\"\nrequests = 9\n\
                profile = { kind = \"ramp\", from = \"1/s\", to = \"9/s\", over = \"1m\" }\n\
                [[run]]\nload = [\"l\"]\nat = [{ deploy = \"one\", rate = \"5/s\" }]";
    let lab = Lab::new(&emulated(&["one"], "ttft = \"5ms\", itl = \"1ms\"", load));
    let said = lab.say("check", &[]).expect_code(2);
    assert!(said.stderr.contains("run[0].at[0]: the point gives a rate"), "{}", said.stderr);
}

#[test]
fn a_longest_context_in_the_engine_s_own_words_wins_over_max_len() {
    let words = [
        ("vllm", "--max-model-len"),
        ("sglang", "--context-length"),
        ("dynamo-sglang", "--context-length"),
        ("lmdeploy", "--session-len"),
    ];
    for (engine, _) in words {
        for (_, flag) in words {
            let lab = Lab::new(&format!(
                "schema = 1\nname = \"t\"\n[model]\nid = \"m\"\nmax_len = 64\n\
                 [[deploy]]\nname = \"d\"\nplatform = \"local\"\nengine = \"{engine}\"\nargs = [\"{flag}=512\"]\n\
                 [[workload]]\nname = \"w\"\nkind = \"synthetic\"\nisl = 100\nosl = 20\n\
                 [[load]]\nname = \"l\"\nworkload = \"w\"\nmode = \"serial\"\nrequests = 1\n"
            ));
            let said = lab.say("check", &[]);
            let is_its_own = words.contains(&(engine, flag));
            assert_eq!(
                said.code,
                Some(if is_its_own { 0 } else { 2 }),
                "{engine} {flag}: {said:?}"
            );
            assert_eq!(said.stderr.contains("do not fit max_len"), !is_its_own, "{}", said.stderr);
        }
    }
}

/// The emulated deployment, with this in its `ready`.
fn ready(keys: &str) -> Lab {
    let text = crate::support::emulated(
        &["one"],
        "ttft = \"5ms\"",
        "mode = \"closed\"\nconcurrency = 1\nrequests = 2\n",
    );
    Lab::new(&text.replacen("stop = {", &format!("ready = {{ {keys} }}\nstop = {{"), 1))
}

#[test]
fn a_gate_s_own_time_is_within_that_of_all_and_of_a_gate_that_is_waited_for() {
    for (keys, said) in [
        ("timeout = \"1m\", within = { health = \"2m\" }", "2.00 min is longer than 1.00 min"),
        ("within = { models = \"0s\" }", "a gate is not passed in no time"),
        ("models = false, within = { models = \"5s\" }", "'one' has no gate 'models' to wait for"),
        ("within = { blocks = \"5s\" }", "it has: health, models, instances, completion"),
        ("within = { helth = \"5s\" }", "helth"),
    ] {
        let checked = ready(keys).say("check", &[]).expect_code(2);
        assert!(checked.stderr.contains("within"), "{keys}: {}", checked.stderr);
        assert!(checked.stderr.contains(said), "{keys}: {}", checked.stderr);
    }
    let keys = "timeout = \"1m\", within = { health = \"20s\", completion = \"30s\" }";
    let plan = ready(keys).say("plan", &[]).expect_code(0);
    assert!(
        plan.stdout.contains("and of that: health in 20.0 s, completion in 30.0 s"),
        "{plan:?}"
    );
}

/// What Ray's prefill replicas refuse would be found out after minutes of bring-up, by each request.
#[test]
fn a_forced_length_that_prefill_replicas_of_ray_serve_refuse_is_told() {
    let text = std::fs::read_to_string(root().join("experiments/real-ray-serve.toml")).unwrap();
    let told = |text: &str| Lab::new(text).say("plan", &["--deploy", "split"]).expect_code(0);
    let refuses =
        "split: Ray Serve's prefill replicas refuse a request whose min_tokens is above 1";
    let said = told(&text);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains(refuses), "{said:?}");
    for least in ["", "body = { min_tokens = 24 }"] {
        let line = text.lines().find(|line| line.starts_with("body ")).unwrap();
        let said = told(&text.replacen(line, least, 1));
        assert!(format!("{}{}", said.stdout, said.stderr).contains(refuses), "{least}: {said:?}");
    }
}

#[test]
fn what_is_not_chosen_need_not_be_fit_to_be_emulated() {
    let text = emulated(&["one"], "speed = 1.0", "mode = \"serial\"\nrequests = 4\n");
    let deploy = text.split("[[deploy]]").nth(1).unwrap().split("[[").next().unwrap();
    let wide = deploy
        .replace("name = \"one\"", "name = \"wide\"")
        .replace("place = [\"box:0\"]", "tp = 8\nplace = [\"box:0-7\"]");
    let lab = Lab::new(&format!("{text}\n[[deploy]]{wide}"));
    let all = lab.say("check", &[]).expect_code(2);
    assert!((all.stdout + &all.stderr).contains("deploy[1]: it cannot be emulated"));
    lab.say("plan", &["--deploy", "one"]).expect_code(0);
    lab.say("plan", &["--deploy", "wide"]).expect_code(2);
    lab.say("down", &[]).expect_code(0);
}

#[test]
fn what_a_platform_refuses_is_noted_before_it_is_started() {
    let text = std::fs::read_to_string(root().join("experiments/real-dynamo-slurm.toml")).unwrap();
    let image = "platform = \"slurm\"\nimage = \"nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1\"";
    let lab = Lab::new(&text.replacen("platform = \"slurm\"", image, 1));
    let said = lab.say("check", &[]).expect_code(0).stdout;
    let want = "note: deploy[1]: slurm refuses it: what its processes write is not rendered in containers\n      hint: leave image out";
    assert!(said.contains(want), "{said}");
    assert!(lab.say("plan", &[]).expect_code(0).stdout.contains(want));
}

//! Closed forms, orderings that every practitioner would insist on, and the sanity table.

use super::*;
use crate::catalog::{gpu, model};
use crate::timing::{Chunk, InterNode};

fn roofline(id: &str, card: &str, (tp, pp, nodes): (u32, u32, u32), gbps: f64) -> Roofline {
    let fabric = Fabric { inter_node_gbps: gbps, inter_node: InterNode::Sockets };
    Roofline::new(model(id).unwrap(), gpu(card).unwrap(), Layout { tp, pp, nodes }, fabric)
}

fn r1_32b(shape: (u32, u32, u32)) -> Roofline {
    roofline("DeepSeek-R1-Distill-Qwen-32B", "H100", shape, 100.0)
}

fn decode(seqs: u64, context_each: u64) -> BatchShape {
    BatchShape { prefill: Vec::new(), decode_seqs: seqs, decode_context: seqs * context_each }
}

fn prefill(tokens: u64) -> BatchShape {
    let chunk = Chunk { new_tokens: tokens, context_before: 0 };
    BatchShape { prefill: vec![chunk], decode_seqs: 0, decode_context: 0 }
}

fn ms(model: &Roofline, batch: &BatchShape) -> f64 {
    model.step(batch).unwrap().as_millis_f64()
}

#[test]
fn one_decoding_sequence_is_the_weights_over_the_bandwidth() {
    // 8B on one H100: with no context and one token, compute is lost in the p-norm, so the closed form
    // is the weights read once plus the fixed times.
    let model = roofline("Llama-3.1-8B", "H100", (1, 1, 1), 100.0);
    let read = (model.model.weights_bytes() - model.model.head_params() * 2.0) / (3350e9 * 0.87);
    let fixed = 32.0 * LAYER_S + HOST_STEP_S + HOST_SEQUENCE_S;
    let want = (read + fixed) * 1e3;
    let got = ms(&model, &decode(1, 1));
    assert!((got / want - 1.0).abs() < 0.01, "{got} against {want}");
}

#[test]
fn a_long_prefill_is_the_flops_over_the_peak() {
    let model = roofline("Llama-3.1-8B", "H100", (1, 1, 1), 100.0);
    let flops = 2.0 * 32.0 * model.model.layer_params() * 8_192.0;
    let attention = 4.0 * 4096.0 * 8_192.0 * 4_096.0 * 32.0 / (989e12 * 0.67);
    let want = (flops / (989e12 * 0.81) + attention) * 1e3;
    let got = ms(&model, &prefill(8_192));
    assert!(got > want && got < want * 1.1, "{got} against {want}");
}

#[test]
fn an_empty_batch_is_an_error() {
    assert_eq!(r1_32b((4, 1, 1)).step(&BatchShape::default()), Err(TimingError::EmptyBatch));
}

#[test]
fn a_broken_link_is_an_error_not_a_zero() {
    let model = roofline("Qwen2.5-32B-Instruct", "H100", (8, 1, 2), 0.0);
    assert!(matches!(model.step(&decode(1, 10)), Err(TimingError::Unusable { .. })));
}

#[test]
fn decode_falls_with_tensor_parallelism_on_nvlink() {
    let times: Vec<f64> =
        [1, 2, 4, 8].into_iter().map(|tp| ms(&r1_32b((tp, 1, 1)), &decode(8, 1_000))).collect();
    assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "{times:?}");
}

#[test]
fn tensor_parallelism_over_ethernet_is_slower_than_over_nvlink() {
    for batch in [decode(1, 500), decode(128, 1_000), prefill(4_096)] {
        assert!(ms(&r1_32b((8, 1, 2)), &batch) > ms(&r1_32b((8, 1, 1)), &batch));
    }
}

#[test]
fn pipeline_over_ethernet_costs_less_than_tensor_parallelism_over_ethernet() {
    for batch in [decode(1, 500), decode(128, 1_000), prefill(4_096)] {
        assert!(ms(&r1_32b((4, 2, 2)), &batch) < ms(&r1_32b((8, 1, 2)), &batch));
    }
}

#[test]
fn eight_gpus_as_two_stages_or_as_two_replicas() {
    let (one, staged) = (r1_32b((4, 1, 1)), r1_32b((4, 2, 2)));
    let single = ms(&one, &decode(1, 500));
    assert!((9.0..14.0).contains(&single), "{single}");
    let staged_single = ms(&staged, &decode(1, 500));
    assert!(staged_single > single && staged_single < single * 1.2, "{staged_single}");
    // At a large batch two stages do more than one TP4, and two TP4 replicas more than both.
    let large = decode(256, 1_500);
    assert!(ms(&staged, &large) < ms(&one, &large));
    assert!(ms(&one, &decode(128, 1_500)) < ms(&staged, &large));
}

#[test]
fn faster_hardware_is_faster() {
    let time = |card| ms(&roofline("Llama-3.1-8B", card, (1, 1, 1), 100.0), &decode(16, 1_000));
    let order = ["B200", "H200", "H100", "A100", "L40S", "L4"];
    assert!(order.windows(2).all(|pair| time(pair[0]) < time(pair[1])));
}

#[test]
fn fp8_reads_half_the_weights() {
    let time = |id| ms(&roofline(id, "H100", (1, 1, 1), 100.0), &decode(1, 10));
    assert!(time("Qwen3-8B-FP8") < time("Qwen3-8B") * 0.8);
}

/// A slower network makes a step longer by what is moved over it, and by nothing else.
#[test]
fn what_is_exchanged_is_the_part_of_a_step_that_a_network_makes_longer() {
    let one = r1_32b((1, 1, 1)).exchange();
    assert_eq!((one.step_s, one.token_s), (0.0, 0.0));
    for shape in [(8, 1, 2), (4, 2, 2)] {
        let at = |gbps| roofline("DeepSeek-R1-Distill-Qwen-32B", "H100", shape, gbps);
        let (slow, fast) = (at(1.0), at(10.0));
        for n in [1, 256] {
            let tokens = n as f64 / f64::from(shape.1).min(n as f64);
            let moved =
                |of: &Roofline| 1e3 * (of.exchange().step_s + of.exchange().token_s * tokens);
            let longer = ms(&slow, &decode(n, 1_000)) - ms(&fast, &decode(n, 1_000));
            let want = moved(&slow) - moved(&fast);
            assert!((longer - want).abs() < 1e-3, "{shape:?} {n}: {longer} ms and not {want}");
        }
    }
}

/// Run with `--no-capture` to read it.
#[test]
fn sanity_table() {
    println!(
        "DeepSeek-R1-Distill-Qwen-32B on H100, 1500 tokens of context, step in ms, tok/s per 8 GPUs"
    );
    println!(
        "{:<28}{:>9}{:>9}{:>9}{:>9}{:>12}",
        "layout", "B=1", "B=32", "B=128", "B=256", "tok/s@256"
    );
    for (name, shape, replicas) in [
        ("2 x TP4, NVLink", (4, 1, 1), 2),
        ("TP8, NVLink", (8, 1, 1), 1),
        ("TP4 x PP2, 100 GbE", (4, 2, 2), 1),
        ("TP8, 100 GbE", (8, 1, 2), 1),
    ] {
        let model = r1_32b(shape);
        let times = [1, 32, 128, 256].map(|b| ms(&model, &decode(b, 1_500)));
        let rate = 256.0 / ms(&model, &decode(256 / replicas, 1_500)) * 1e3;
        let [a, b, c, d] = times;
        println!("{name:<28}{a:>9.2}{b:>9.2}{c:>9.2}{d:>9.2}{rate:>12.0}");
    }
}

//! The catalogue of metrics.

use super::{Better, Metric, Of, TrialView, machines, steady};
use crate::engine_metrics::{EngineReadings, Word};
use crate::request::{Outcome, RequestRecord, TokenSource};
use crate::slo::Tally;
use crate::stats::percentile::{self, percentile_of};
use crate::telemetry::Part;
use crate::units::Nanos;

/// Every metric, in the order in which files list them.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "ttft_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "time to first token: first chunk with non-empty text, reasoning or tool-call content, minus scheduled_at",
        of: Of::Completed(|r, out| since(r.first_token_at, Some(r.scheduled_at), out)),
    },
    Metric {
        name: "ttft_sent_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "time to first token, from the instant the kernel took the request's last byte",
        of: Of::Completed(|r, out| since(r.first_token_at, r.sent_at, out)),
    },
    Metric {
        name: "ttfo_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "time to first output token: first chunk with text or tool-call content, reasoning passed over, minus scheduled_at",
        of: Of::Completed(|r, out| since(r.first_answer_at, Some(r.scheduled_at), out)),
    },
    Metric {
        name: "ttst_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "time to second token: second arrival of output minus the first; absent where one read brought both",
        of: Of::Completed(ttst_ms),
    },
    Metric {
        name: "tpot_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "time per output token: (last token - first token) / (tokens - 1) of a request; absent below two tokens",
        of: Of::Completed(|r, out| out.extend(tpot_ms(r))),
    },
    Metric {
        name: "itl_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "inter-token latency: gaps between successive arrivals of output, pooled over requests; a chunk of k tokens is one arrival",
        of: Of::Completed(itl_ms),
    },
    Metric {
        name: "e2e_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "end of stream minus scheduled_at",
        of: Of::Completed(|r, out| since(Some(r.finished_at), Some(r.scheduled_at), out)),
    },
    Metric {
        name: "e2e_sent_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "end of stream minus the instant the kernel took the request's last byte",
        of: Of::Completed(|r, out| since(Some(r.finished_at), r.sent_at, out)),
    },
    Metric {
        name: "token_latency_ms",
        unit: "ms/token",
        better: Better::Lower,
        doc: "normalised latency: end-to-end latency of a request / its output tokens",
        of: Of::Completed(|r, out| {
            let tokens = f64::from(r.output_tokens.unwrap_or(0));
            if tokens > 0.0 {
                out.push(r.finished_at.millis_after(r.scheduled_at) / tokens);
            }
        }),
    },
    Metric {
        name: "interactivity_tps",
        unit: "tokens/s/user",
        better: Better::Higher,
        doc: "1 / TPOT of a request",
        of: Of::Completed(|r, out| out.extend(tpot_ms(r).filter(|t| *t > 0.0).map(|t| 1e3 / t))),
    },
    Metric {
        name: "lateness_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "sent_at - scheduled_at: how late the load generator was, connecting included",
        of: Of::Sent(|r, out| since(r.sent_at, Some(r.scheduled_at), out)),
    },
    Metric {
        name: "send_delay_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "lateness without the time to connect: the load generator's own part, and the wait for a slot where the load has a limit",
        of: Of::Sent(|r, out| {
            let connecting = r.connect.map_or(0.0, Nanos::as_millis_f64);
            out.extend(r.sent_at.map(|at| (at.millis_after(r.scheduled_at) - connecting).max(0.0)));
        }),
    },
    Metric {
        name: "read_lag_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "read - arrival, by the kernel's stamp: how late a stamp of the client's own would be; zero where the system has none",
        of: Of::Completed(|r, out| {
            out.extend(r.arrivals.iter().map(|a| f64::from(a.lag_ns) / 1e6));
        }),
    },
    Metric {
        name: "merged_arrivals",
        unit: "",
        better: Better::Lower,
        doc: "share of output chunks that came in one read with the chunk before them, and share its stamp",
        of: Of::Trial(merged_arrivals),
    },
    Metric {
        name: "tokens_per_chunk",
        unit: "tokens",
        better: Better::Neither,
        doc: "output tokens by the server's usage / non-empty chunks of a request",
        of: Of::Completed(|r, out| {
            if let (Some(TokenSource::Usage), Some(n), 1..) =
                (r.token_source, r.output_tokens, r.chunks())
            {
                out.push(f64::from(n) / f64::from(r.chunks()));
            }
        }),
    },
    Metric {
        name: "chunks_per_arrival",
        unit: "chunks",
        better: Better::Neither,
        doc: "non-empty chunks that one read of the socket brought, of all reads that brought any",
        of: Of::Completed(|r, out| out.extend(r.arrivals.iter().map(|a| f64::from(a.chunks)))),
    },
    Metric {
        name: "connect_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "time to open a connection, of requests that needed a new one",
        of: Of::Sent(|r, out| out.extend(r.connect.map(Nanos::as_millis_f64))),
    },
    Metric {
        name: "prompt_tokens",
        unit: "tokens",
        better: Better::Neither,
        doc: "prompt tokens of a request by the server's usage",
        of: Of::Completed(|r, out| out.extend(r.prompt_tokens.map(f64::from))),
    },
    Metric {
        name: "output_tokens",
        unit: "tokens",
        better: Better::Neither,
        doc: "output tokens of a request: server usage, else tokenizer, else chunks",
        of: Of::Completed(|r, out| out.extend(r.output_tokens.map(f64::from))),
    },
    Metric {
        name: "reasoning_tokens",
        unit: "tokens",
        better: Better::Neither,
        doc: "output tokens of a request that are reasoning: server usage, else chunks of reasoning; absent where neither tells",
        of: Of::Completed(|r, out| out.extend(r.reasoning_tokens.map(f64::from))),
    },
    Metric {
        name: "rps",
        unit: "req/s",
        better: Better::Higher,
        doc: "completed requests / measured wall time (first send to last byte)",
        of: Of::Trial(|t| Some(t.completed().count() as f64 / t.wall_s()?)),
    },
    Metric {
        name: "output_tps",
        unit: "tokens/s",
        better: Better::Higher,
        doc: "output tokens of completed requests / measured wall time",
        of: Of::Trial(tps),
    },
    Metric {
        name: "output_tps_steady",
        unit: "tokens/s",
        better: Better::Higher,
        doc: "output tokens in the steady window / its length: 90 % of the asked concurrency in flight; open load: first tenth answered to last due time",
        of: Of::Trial(output_tps_steady),
    },
    Metric {
        name: "steady_share",
        unit: "",
        better: Better::Neither,
        doc: "length of the steady window / measured wall time; absent where there is no such window",
        of: Of::Trial(|t| {
            let (from, to) = steady(t).ok()?;
            Some((to - from).as_secs_f64() / t.wall_s()?)
        }),
    },
    Metric {
        name: "total_tps",
        unit: "tokens/s",
        better: Better::Higher,
        doc: "prompt and output tokens of completed requests / measured wall time",
        of: Of::Trial(|t| {
            let prompt = total(t, |r| r.prompt_tokens)?;
            Some((prompt + output_tokens(t)?) / t.wall_s()?)
        }),
    },
    Metric {
        name: "prefill_tps",
        unit: "tokens/s",
        better: Better::Higher,
        doc: "prompt tokens of a request / its time to first token: what one user sees of prefill, queueing included",
        of: Of::Completed(prefill_tps),
    },
    Metric {
        name: "output_tps_per_gpu",
        unit: "tokens/s/GPU",
        better: Better::Higher,
        doc: "output tokens/s / allocated GPUs of the deployment (what is paid for)",
        of: Of::Trial(|t| per_gpu(t, output_tokens(t)? / t.wall_s()?)),
    },
    Metric {
        name: "rps_per_gpu",
        unit: "req/s/GPU",
        better: Better::Higher,
        doc: "requests/s / allocated GPUs of the deployment",
        of: Of::Trial(|t| per_gpu(t, t.completed().count() as f64 / t.wall_s()?)),
    },
    Metric {
        name: "output_tps_per_working_gpu",
        unit: "tokens/s/GPU",
        better: Better::Higher,
        doc: "output tokens/s / allocated GPUs on which any kernel ran in the measured time; absent where that of one is not known",
        of: Of::Trial(|t| Some(tps(t)? / some(machines::working_gpus(t)?)?)),
    },
    Metric {
        name: "output_tps_per_decode_gpu",
        unit: "tokens/s/GPU",
        better: Better::Higher,
        doc: "output tokens/s / allocated GPUs of decode instances; absent without prefill and decode pools",
        of: Of::Trial(|t| Some(tps(t)? / some(f64::from(t.context.decode_gpus))?)),
    },
    Metric {
        name: "prompt_tps_per_prefill_gpu",
        unit: "tokens/s/GPU",
        better: Better::Higher,
        doc: "prompt tokens of completed requests / measured wall time / allocated GPUs of prefill instances; absent without such pools",
        of: Of::Trial(|t| {
            let gpus = some(f64::from(t.context.prefill_gpus))?;
            Some(total(t, |r| r.prompt_tokens)? / t.wall_s()? / gpus)
        }),
    },
    Metric {
        name: "output_tps_per_node",
        unit: "tokens/s/node",
        better: Better::Higher,
        doc: "output tokens/s / machines that the deployment is placed on",
        of: Of::Trial(|t| Some(tps(t)? / some(f64::from(t.context.nodes))?)),
    },
    Metric {
        name: "output_tps_per_user",
        unit: "tokens/s/user",
        better: Better::Higher,
        doc: "output tokens/s / concurrency reached; waiting for the first token counts, unlike in interactivity",
        of: Of::Trial(|t| {
            let reached = concurrency_reached(t)?;
            Some(output_tokens(t)? / t.wall_s()? / reached)
        }),
    },
    Metric {
        name: "success_rate",
        unit: "",
        better: Better::Higher,
        doc: "completed requests / requests that were due, without those that the client gave up as planned",
        of: Of::Trial(|t| success_rate(t.records.iter())),
    },
    Metric {
        name: "concurrency_reached",
        unit: "requests",
        better: Better::Neither,
        doc: "time integral of requests in flight / measured wall time",
        of: Of::Trial(concurrency_reached),
    },
    Metric {
        name: "concurrency_effective_ratio",
        unit: "",
        better: Better::Neither,
        doc: "concurrency reached / concurrency asked for",
        of: Of::Trial(|t| {
            let asked = f64::from(t.context.level.concurrency?);
            Some(concurrency_reached(t)? / asked)
        }),
    },
    Metric {
        name: "wall_s",
        unit: "s",
        better: Better::Neither,
        doc: "measured wall time of a trial: first send to last byte",
        of: Of::Trial(|t| t.wall_s()),
    },
    Metric {
        name: "requests",
        unit: "requests",
        better: Better::Neither,
        doc: "requests of a trial, all outcomes",
        of: Of::Trial(|t| Some(t.records.len() as f64)),
    },
    Metric {
        name: "gpus",
        unit: "GPUs",
        better: Better::Neither,
        doc: "allocated GPUs of the deployment",
        of: Of::Trial(|t| (t.context.gpus > 0).then(|| f64::from(t.context.gpus))),
    },
    Metric {
        name: "concurrency",
        unit: "requests",
        better: Better::Neither,
        doc: "concurrency asked for",
        of: Of::Trial(|t| t.context.level.concurrency.map(f64::from)),
    },
    Metric {
        name: "rate",
        unit: "req/s",
        better: Better::Neither,
        doc: "arrival rate asked for",
        of: Of::Trial(|t| t.context.level.rate_rps),
    },
    Metric {
        name: "cost",
        unit: "currency",
        better: Better::Lower,
        doc: "price of the deployment over the measured wall time",
        of: Of::Trial(cost),
    },
    Metric {
        name: "cost_per_mtok",
        unit: "currency/Mtoken",
        better: Better::Lower,
        doc: "price of the deployment over the measured wall time / million output tokens",
        of: Of::Trial(|t| Some(cost(t)? / (some(output_tokens(t)?)? / 1e6))),
    },
    Metric {
        name: "cost_per_input_mtok",
        unit: "currency/Mtoken",
        better: Better::Lower,
        doc: "price of the deployment over the measured wall time / million prompt tokens of completed requests: all of it, and not a part beside that of output",
        of: Of::Trial(|t| Some(cost(t)? / (some(total(t, |r| r.prompt_tokens)?)? / 1e6))),
    },
    Metric {
        name: "cost_per_total_mtok",
        unit: "currency/Mtoken",
        better: Better::Lower,
        doc: "price of the deployment over the measured wall time / million prompt and output tokens",
        of: Of::Trial(|t| {
            let tokens = output_tokens(t)? + total(t, |r| r.prompt_tokens)?;
            Some(cost(t)? / (some(tokens)? / 1e6))
        }),
    },
    Metric {
        name: "output_tokens_per_cost",
        unit: "tokens/currency",
        better: Better::Higher,
        doc: "output tokens of completed requests / price of the deployment over the measured wall time",
        of: Of::Trial(|t| Some(output_tokens(t)? / some(cost(t)?)?)),
    },
    Metric {
        name: "osl_mismatch",
        unit: "",
        better: Better::Lower,
        doc: "share of completed requests with forced length whose output tokens, by the server's usage, are not what was asked",
        of: Of::Trial(osl_mismatch),
    },
    Metric {
        name: "prefix_hit_ratio",
        unit: "",
        better: Better::Neither,
        doc: "prompt tokens from the server's prefix cache / prompt tokens, by its usage; absent where no answer says it (servers leave zero out)",
        of: Of::Trial(|t| prefix_hit_ratio(t.records.iter())),
    },
    Metric {
        name: "tokens_from_usage",
        unit: "",
        better: Better::Higher,
        doc: "share of completed requests whose output tokens are the server's own count; absent where none are asked for",
        of: Of::Trial(|t| {
            // An embedding has no output, so nothing is missing where none is counted.
            let has_output =
                |r: &&RequestRecord| r.asked_output_tokens > 0 || r.token_source.is_some();
            let asked = || t.completed().filter(has_output);
            let n = asked().count();
            let own = asked().filter(|r| r.token_source == Some(TokenSource::Usage)).count();
            (n > 0).then(|| own as f64 / n as f64)
        }),
    },
    Metric {
        name: "usage_minus_chunks",
        unit: "tokens",
        better: Better::Neither,
        doc: "server usage minus non-empty chunks of a request: how wrong counting chunks would be",
        of: Of::Completed(|r, out| {
            if let (Some(TokenSource::Usage), Some(n)) = (r.token_source, r.output_tokens) {
                out.push(f64::from(n) - f64::from(r.chunks()));
            }
        }),
    },
    Metric {
        name: "goodput_rps",
        unit: "req/s",
        better: Better::Higher,
        doc: "good requests / measured wall time; good is completed within every limit of the load's SLO. Absent without an SLO, as all below",
        of: Of::Trial(|t| Some(good(t)?.within as f64 / t.wall_s()?)),
    },
    Metric {
        name: "goodput_tps",
        unit: "tokens/s",
        better: Better::Higher,
        doc: "output tokens of good requests / measured wall time",
        of: Of::Trial(|t| Some(good_tokens(t)? / t.wall_s()?)),
    },
    Metric {
        name: "goodput_rps_per_gpu",
        unit: "req/s/GPU",
        better: Better::Higher,
        doc: "good requests/s / allocated GPUs of the deployment",
        of: Of::Trial(|t| per_gpu(t, good(t)?.within as f64 / t.wall_s()?)),
    },
    Metric {
        name: "goodput_tps_per_gpu",
        unit: "tokens/s/GPU",
        better: Better::Higher,
        doc: "output tokens/s of good requests / allocated GPUs of the deployment",
        of: Of::Trial(|t| per_gpu(t, good_tokens(t)? / t.wall_s()?)),
    },
    Metric {
        name: "slo_attainment",
        unit: "",
        better: Better::Higher,
        doc: "good requests / requests that were due, without those that the client gave up as planned",
        of: Of::Trial(|t| {
            let good = good(t)?;
            (good.of > 0).then(|| good.within as f64 / good.of as f64)
        }),
    },
    Metric {
        name: "slo_met",
        unit: "",
        better: Better::Higher,
        doc: "1 where every percentile bound of the load's SLO holds in a trial, else 0; over repeats: the share of trials",
        of: Of::Trial(|t| {
            let slo = t.context.slo?;
            Some(f64::from(u8::from(slo.judge(&slo.tallies(t.records)).holds)))
        }),
    },
    Metric {
        name: "gpu_util",
        unit: "%",
        better: Better::Neither,
        doc: "share of the measured time in which any kernel ran on a GPU, by its driver; mean over the GPUs that the deployment was given",
        of: Of::Trial(|t| {
            machines::gpus(t, |g| g.busy_pct.map(|p| p.mean / 100.0), machines::mean)
        }),
    },
    Metric {
        name: "gpu_util.max",
        unit: "%",
        better: Better::Neither,
        doc: "the largest reading of that, over the GPUs",
        of: Of::Trial(|t| machines::gpus(t, |g| Some(g.busy_pct?.max? / 100.0), machines::max)),
    },
    Metric {
        name: "gpu_util.imbalance",
        unit: "",
        better: Better::Lower,
        doc: "(max - min) / max of the mean share of busy time over the GPUs of one instance; the largest over the instances",
        of: Of::Trial(machines::busy_imbalance),
    },
    Metric {
        name: "gpu_mem",
        unit: "%",
        better: Better::Neither,
        doc: "share of a GPU's memory in use; mean over the GPUs that the deployment was given",
        of: Of::Trial(|t| {
            machines::gpus(t, |g| g.memory_pct.map(|p| p.mean / 100.0), machines::mean)
        }),
    },
    Metric {
        name: "gpu_mem.max",
        unit: "%",
        better: Better::Neither,
        doc: "the largest reading of that, over the GPUs",
        of: Of::Trial(|t| machines::gpus(t, |g| Some(g.memory_pct?.max? / 100.0), machines::max)),
    },
    Metric {
        name: "gpu_mem.imbalance",
        unit: "",
        better: Better::Lower,
        doc: "(max - min) / max of memory in use over the GPUs of one instance; the largest over the instances",
        of: Of::Trial(machines::memory_imbalance),
    },
    Metric {
        name: "cpu_util",
        unit: "%",
        better: Better::Neither,
        doc: "share of all cores' time in use, by whomever; mean over the hosts of the deployment",
        of: Of::Trial(|t| {
            machines::hosts(t, |h| h.cpu_pct.map(|p| p.mean / 100.0), machines::mean)
        }),
    },
    Metric {
        name: "cpu_util.max",
        unit: "%",
        better: Better::Neither,
        doc: "the largest share between two readings, over the hosts",
        of: Of::Trial(|t| machines::hosts(t, |h| Some(h.cpu_pct?.max? / 100.0), machines::max)),
    },
    Metric {
        name: "mem_util",
        unit: "%",
        better: Better::Neither,
        doc: "share of memory that is not available; mean over the hosts of the deployment",
        of: Of::Trial(|t| {
            machines::hosts(t, |h| h.memory_pct.map(|p| p.mean / 100.0), machines::mean)
        }),
    },
    Metric {
        name: "mem_util.max",
        unit: "%",
        better: Better::Neither,
        doc: "the largest reading of that, over the hosts",
        of: Of::Trial(|t| machines::hosts(t, |h| Some(h.memory_pct?.max? / 100.0), machines::max)),
    },
    Metric {
        name: "net_gbps",
        unit: "Gbit/s",
        better: Better::Neither,
        doc: "received and sent over all interfaces of a host but loopback; mean over the hosts of the deployment",
        of: Of::Trial(|t| machines::network(t, Part::Nic, |r| Some(r.mean), machines::mean)),
    },
    Metric {
        name: "net_gbps.max",
        unit: "Gbit/s",
        better: Better::Neither,
        doc: "received and sent of the busiest host: the sum of each interface's largest rates between two readings",
        of: Of::Trial(|t| machines::network(t, Part::Nic, |r| r.max, machines::max)),
    },
    Metric {
        name: "rdma_gbps",
        unit: "Gbit/s",
        better: Better::Neither,
        doc: "received and sent over all InfiniBand and RoCE ports of a host; mean over the hosts of the deployment",
        of: Of::Trial(|t| machines::network(t, Part::Rdma, |r| Some(r.mean), machines::mean)),
    },
    Metric {
        name: "rdma_gbps.max",
        unit: "Gbit/s",
        better: Better::Neither,
        doc: "received and sent of the busiest host: the sum of each port's largest rates between two readings",
        of: Of::Trial(|t| machines::network(t, Part::Rdma, |r| r.max, machines::max)),
    },
    Metric {
        name: "power_w",
        unit: "W",
        better: Better::Lower,
        doc: "mean power of all GPUs that the deployment was given, idle ones too: energy / measured time; the machines around them are not in it",
        of: Of::Trial(|t| machines::energy(t).map(|e| e.mean_w)),
    },
    Metric {
        name: "energy_j",
        unit: "J",
        better: Better::Lower,
        doc: "integral of the power of all GPUs that the deployment was given over the measured time, borders interpolated; the machines around them are not in it",
        of: Of::Trial(|t| machines::energy(t).map(|e| e.joules)),
    },
    Metric {
        name: "joules_per_output_token",
        unit: "J/token",
        better: Better::Lower,
        doc: "power_w / output_tps: energy over output tokens of completed requests, of the steady part where that is looked at",
        of: Of::Trial(|t| Some(machines::energy(t)?.mean_w / some(machines::output_tps(t)?)?)),
    },
    Metric {
        name: "joules_per_token",
        unit: "J/token",
        better: Better::Lower,
        doc: "energy_j / prompt and output tokens of completed requests",
        of: Of::Trial(|t| {
            Some(
                machines::whole_energy(t)?.joules
                    / some(output_tokens(t)? + total(t, |r| r.prompt_tokens)?)?,
            )
        }),
    },
    Metric {
        name: "joules_per_request",
        unit: "J",
        better: Better::Lower,
        doc: "energy_j / completed requests",
        of: Of::Trial(|t| {
            Some(machines::whole_energy(t)?.joules / some(t.completed().count() as f64)?)
        }),
    },
    Metric {
        name: "joules_per_good_request",
        unit: "J",
        better: Better::Lower,
        doc: "energy_j / requests that met the load's SLO",
        of: Of::Trial(|t| Some(machines::whole_energy(t)?.joules / some(good(t)?.within as f64)?)),
    },
    Metric {
        name: "output_tps_per_kw",
        unit: "tokens/s/kW",
        better: Better::Higher,
        doc: "output_tps / (power_w / 1000): over the power of all GPUs that the deployment was given, not of the machines around them",
        of: Of::Trial(|t| {
            Some(machines::output_tps(t)? / (some(machines::energy(t)?.mean_w)? / 1e3))
        }),
    },
    Metric {
        name: "host_power_w",
        unit: "W",
        better: Better::Lower,
        doc: "mean power of the deployment's machines: all of each by its controller, else processors, memory and the GPUs that were given; absent where one has none",
        of: Of::Trial(|t| machines::host_energy(t).map(|e| e.mean_w)),
    },
    Metric {
        name: "host_energy_j",
        unit: "J",
        better: Better::Lower,
        doc: "energy of the deployment's machines over the measured time, GPUs included and counted once",
        of: Of::Trial(|t| machines::host_energy(t).map(|e| e.joules)),
    },
    Metric {
        name: "host_joules_per_output_token",
        unit: "J/token",
        better: Better::Lower,
        doc: "host_power_w / output_tps: energy of GPUs and machines over output tokens of completed requests",
        of: Of::Trial(|t| Some(machines::host_energy(t)?.mean_w / some(machines::output_tps(t)?)?)),
    },
    Metric {
        name: "host_joules_per_token",
        unit: "J/token",
        better: Better::Lower,
        doc: "host_energy_j / prompt and output tokens of completed requests",
        of: Of::Trial(|t| {
            let tokens = output_tokens(t)? + total(t, |r| r.prompt_tokens)?;
            Some(machines::whole_host_energy(t)?.joules / some(tokens)?)
        }),
    },
    Metric {
        name: "host_output_tps_per_kw",
        unit: "tokens/s/kW",
        better: Better::Higher,
        doc: "output_tps / (host_power_w / 1000): over the power of GPUs and machines, where that of every machine is known",
        of: Of::Trial(|t| {
            Some(machines::output_tps(t)? / (some(machines::host_energy(t)?.mean_w)? / 1e3))
        }),
    },
    Metric {
        name: "busy_sample_power_w",
        unit: "W",
        better: Better::Neither,
        doc: "seed 4's own number: mean of the power samples of a GPU at which it was busier than seed4_util_floor; not an energy over the time",
        of: Of::Trial(|t| t.usage?.busy_sample_power_w),
    },
    Metric {
        name: "queue",
        unit: "requests",
        better: Better::Lower,
        doc: "requests in the engines' queues at each look at them (each second), by their own count, summed over instances",
        of: Of::Looks(Word::Queued),
    },
    Metric {
        name: "running",
        unit: "requests",
        better: Better::Neither,
        doc: "requests in the engines' batches, by their own count, at each look at them, summed over instances",
        of: Of::Looks(Word::Running),
    },
    Metric {
        name: "kv_usage",
        unit: "",
        better: Better::Neither,
        doc: "part of the key-value cache that is in use, by the engine's own count, at each look: of the fullest instance",
        of: Of::Looks(Word::KvUsage),
    },
    Metric {
        name: "preemptions",
        unit: "requests",
        better: Better::Lower,
        doc: "requests that the engines put back in their queues to make room, by their own count",
        of: Of::Trial(|t| t.engines?.risen(Word::Preemptions).ok()),
    },
    Metric {
        name: "engine_prefix_hit_ratio",
        unit: "",
        better: Better::Neither,
        doc: "prompt tokens found in the engines' prefix caches / tokens looked up, by their own count",
        of: Of::Trial(|t| {
            let looked_up = t.engines?.risen(Word::PrefixQueries).ok().filter(|n| *n > 0.0)?;
            Some(t.engines?.risen(Word::PrefixHits).ok()? / looked_up)
        }),
    },
    Metric {
        name: "kv_received_bytes",
        unit: "bytes",
        better: Better::Neither,
        doc: "bytes of key-value blocks that instances were sent by others (vLLM's NixlConnector), over those that count it",
        of: Of::Trial(|t| t.engines?.risen_where_exported(Word::KvReceivedBytes)),
    },
    Metric {
        name: "engine_ttft_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "mean time to first token by the engines' own histogram",
        of: Of::Trial(|t| Some(1e3 * t.engines?.mean(Word::Ttft).ok()?)),
    },
    Metric {
        name: "engine_queue_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "mean time of a request in an engine's queue, by its own histogram; with pools the sum of both roles' means",
        of: Of::Trial(|t| Some(1e3 * t.engines?.mean(Word::QueueTime).ok()?)),
    },
    Metric {
        name: "engine_prefill_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "mean time from leaving an engine's queue to the first token, by its own histogram; with pools the sum of both roles' means",
        of: Of::Trial(|t| Some(1e3 * t.engines?.mean(Word::PrefillTime).ok()?)),
    },
    Metric {
        name: "engine_decode_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "mean time from first to last token, by the engines' own histogram; with pools the sum of both roles' means",
        of: Of::Trial(|t| Some(1e3 * t.engines?.mean(Word::DecodeTime).ok()?)),
    },
    Metric {
        name: "outside_engine_ms",
        unit: "ms",
        better: Better::Lower,
        doc: "mean ttft_sent_ms - engine_queue_ms - engine_prefill_ms: network, router, frontend; absent where the engines saw other requests too",
        of: Of::Trial(|t| {
            let (engines, ttft_ms) = of_the_same_requests(t)?;
            let queue_s = engines.mean(Word::QueueTime).ok()?;
            let prefill_s = engines.mean(Word::PrefillTime).ok()?;
            Some(ttft_ms - 1e3 * (queue_s + prefill_s))
        }),
    },
    Metric {
        name: "engine_queue_share",
        unit: "",
        better: Better::Lower,
        doc: "engine_queue_ms / mean ttft_sent_ms: what more replicas would take away; absent where outside_engine_ms is",
        of: Of::Trial(|t| {
            let (engines, ttft_ms) = of_the_same_requests(t)?;
            let share = 1e3 * engines.mean(Word::QueueTime).ok()? / ttft_ms;
            share.is_finite().then_some(share)
        }),
    },
];

/// Names of what is found between the requests of a mixed load, and of no point by itself: an expectation on them is
/// held against [`crate::analysis::fairness`], and a table of points shows them as absent.
const OF_MIXES: &[&str] = &[crate::analysis::fairness::JAIN];

/// Prefixes of derived metrics: `speedup.output_tps`.
const DERIVED: &[&str] = &["speedup.", "efficiency.", "slowdown."];

/// Statistics besides percentiles.
const STATS: &[&str] = &["mean", "std", "min", "max", "count"];

fn is_statistic(name: &str) -> bool {
    STATS.contains(&name) || percentile_of(name).is_some()
}

/// Whether a file may use `name`.
pub fn is_known(name: &str) -> bool {
    if let Some(rest) = DERIVED.iter().find_map(|p| name.strip_prefix(p)) {
        return is_known(rest);
    }
    if METRICS.iter().any(|m| m.name == name) {
        return true;
    }
    let (base, stat) = percentile::split(name);
    if OF_MIXES.contains(&name) {
        return true;
    }
    match (super::find(base), stat) {
        (None, _) => false,
        (Some(_), None) => true,
        // A number of a trial is its own mean.
        (Some(m), Some(s)) => s == "mean" || (!m.is_of_trial() && is_statistic(s)),
    }
}

/// Names for a hint; distributions by their usual statistics.
pub fn known_names() -> Vec<String> {
    let mut out = Vec::new();
    for metric in METRICS {
        let short = metric.name.strip_suffix("_ms").unwrap_or(metric.name);
        match metric.of {
            Of::Trial(_) => out.push(metric.name.to_owned()),
            _ => out.extend(["mean", "p50", "p95", "p99"].map(|s| format!("{short}.{s}"))),
        }
    }
    out.extend(OF_MIXES.iter().map(|s| (*s).to_owned()));
    out
}

/// A divisor; absent where it is nothing.
fn some(n: f64) -> Option<f64> {
    (n > 0.0).then_some(n)
}

/// Price of the deployment over the measured wall time.
fn cost(t: &TrialView<'_>) -> Option<f64> {
    Some(t.context.price_per_hour? * t.wall_s()? / 3_600.0)
}

/// Output tokens per second over the measured wall time.
fn tps(t: &TrialView<'_>) -> Option<f64> {
    Some(output_tokens(t)? / t.wall_s()?)
}

fn since(later: Option<Nanos>, earlier: Option<Nanos>, out: &mut Vec<f64>) {
    out.extend(later.zip(earlier).map(|(l, e)| l.millis_after(e)));
}

/// (last token - first token) / (tokens - 1) in milliseconds. A batch's tokens are shared out evenly
/// over its prompts, which are decoded side by side.
pub(crate) fn tpot_ms(r: &RequestRecord) -> Option<f64> {
    let tokens = f64::from(r.output_tokens?) / f64::from(r.prompts.max(1));
    let span = r.last_token_at?.millis_after(r.first_token_at?);
    (tokens >= 2.0).then(|| span / (tokens - 1.0))
}

fn itl_ms(r: &RequestRecord, out: &mut Vec<f64>) {
    // Arrivals of a batch belong to several answers; their gaps are nobody's.
    if r.prompts == 1 {
        out.extend(r.arrivals.windows(2).map(|w| w[1].at.millis_after(w[0].at)));
    }
}

/// Of a batch the second arrival may be another answer's first.
fn ttst_ms(r: &RequestRecord, out: &mut Vec<f64>) {
    if let (1, [first, second, ..]) = (r.prompts, r.arrivals.as_slice())
        && first.chunks == 1
    {
        out.push(second.at.millis_after(first.at));
    }
}

fn prefill_tps(r: &RequestRecord, out: &mut Vec<f64>) {
    if let (Some(tokens), Some(first)) = (r.prompt_tokens, r.first_token_at) {
        let seconds = first.millis_after(r.scheduled_at) / 1e3;
        if seconds > 0.0 {
            out.push(f64::from(tokens) / seconds);
        }
    }
}

/// The engines, with the client's mean TTFT from sending, where both are of the same requests.
fn of_the_same_requests<'a>(t: &TrialView<'a>) -> Option<(&'a EngineReadings, f64)> {
    let engines = t.engines?;
    let sent = |r: &RequestRecord| Some(r.first_token_at?.millis_after(r.sent_at?));
    let ttft: Vec<f64> = t.completed().filter_map(sent).collect();
    let n = ttft.len() as f64;
    let is_same = n > 0.0
        && [Word::QueueTime, Word::PrefillTime].iter().all(|word| engines.has_observed(*word, n));
    is_same.then(|| (engines, ttft.iter().sum::<f64>() / n))
}

fn merged_arrivals(t: &TrialView<'_>) -> Option<f64> {
    let chunks: u64 = t.completed().map(|r| u64::from(r.chunks())).sum();
    let arrivals: u64 = t.completed().map(|r| r.arrivals.len() as u64).sum();
    (chunks > 0).then(|| chunks.saturating_sub(arrivals) as f64 / chunks as f64)
}

pub(super) fn success_rate<'a>(
    records: impl Iterator<Item = &'a RequestRecord> + Clone,
) -> Option<f64> {
    let n = records.clone().filter(|r| r.outcome != Outcome::Abandoned).count();
    let completed = records.filter(|r| r.outcome == Outcome::Completed).count();
    (n > 0).then(|| completed as f64 / n as f64)
}

/// Absent where any completed request has no count: a sum over some is not the sum.
pub(super) fn output_tokens(t: &TrialView<'_>) -> Option<f64> {
    total(t, |r| r.output_tokens)
}

/// The sum over completed requests. Counted in integers: a sum of no floats at all is minus zero.
fn total(t: &TrialView<'_>, of: fn(&RequestRecord) -> Option<u32>) -> Option<f64> {
    t.completed().map(|r| of(r).map(u64::from)).sum::<Option<u64>>().map(|n| n as f64)
}

/// Good requests, where the load says what good is.
fn good(t: &TrialView<'_>) -> Option<Tally> {
    Some(t.context.slo?.good(t.records))
}

fn good_tokens(t: &TrialView<'_>) -> Option<f64> {
    let slo = t.context.slo?;
    let good = t.completed().filter(|r| slo.is_good(r));
    good.map(|r| r.output_tokens.map(u64::from)).sum::<Option<u64>>().map(|n| n as f64)
}

fn per_gpu(t: &TrialView<'_>, value: f64) -> Option<f64> {
    (t.context.gpus > 0).then(|| value / f64::from(t.context.gpus))
}

fn concurrency_reached(t: &TrialView<'_>) -> Option<f64> {
    let seconds: f64 =
        t.records.iter().filter_map(|r| Some((r.finished_at - r.sent_at?).as_secs_f64())).sum();
    Some(seconds / t.wall_s()?)
}

pub(super) fn output_tps_steady(t: &TrialView<'_>) -> Option<f64> {
    let (from, to) = steady(t).ok()?;
    let mut tokens = 0.0;
    for r in t.completed() {
        let (chunks, count) = (r.chunks(), f64::from(r.output_tokens?));
        let inside: u32 =
            r.arrivals.iter().filter(|a| a.at > from && a.at <= to).map(|a| a.chunks).sum();
        if chunks > 0 {
            tokens += count * f64::from(inside) / f64::from(chunks);
        }
    }
    Some(tokens / (to - from).as_secs_f64())
}

pub(super) fn prefix_hit_ratio<'a>(
    records: impl Iterator<Item = &'a RequestRecord> + Clone,
) -> Option<f64> {
    let completed = records.filter(|r| r.is_completed());
    if completed.clone().all(|r| r.cached_prompt_tokens.is_none()) {
        return None;
    }
    let prompt: f64 =
        completed.clone().map(|r| r.prompt_tokens.map(f64::from)).sum::<Option<f64>>()?;
    let cached: f64 = completed.map(|r| f64::from(r.cached_prompt_tokens.unwrap_or(0))).sum();
    (prompt > 0.0).then(|| cached / prompt)
}

fn osl_mismatch(t: &TrialView<'_>) -> Option<f64> {
    let forced = t.completed().filter(|r| r.is_forced_and_counted() && r.output_tokens.is_some());
    let n = forced.clone().count();
    let wrong = forced.filter(|r| r.output_tokens != Some(r.asked_output_tokens)).count();
    (n > 0).then(|| wrong as f64 / n as f64)
}

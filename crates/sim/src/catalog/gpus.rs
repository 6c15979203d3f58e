//! GPUs: published dense peaks, and the share of them that measured kernels reach.
//!
//! Peaks are the vendors' data sheets (dense, without sparsity). Efficiencies and all-reduce constants
//! are p-norm and alpha-beta fits to the vLLM rows of the kernel tables in `aiconfigurator-core` 0.12.0
//! (NVIDIA, Apache-2.0): derived numbers, none of its files. Entries marked "carried over" have no
//! measured rows and use those of the nearest relative.

use super::names::folded;

/// One all-reduce within a node: `latency = alpha_us + bytes / gbytes_per_s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AllReduce {
    /// Ranks that take part.
    pub ranks: u32,
    /// Latency of an empty message in microseconds (inside a captured graph).
    pub alpha_us: f64,
    /// Algorithm bandwidth in GB/s.
    pub gbytes_per_s: f64,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuSpec {
    /// The name, as listed by [`gpu_names`].
    pub name: &'static str,
    /// Other names of the same entry.
    pub aliases: &'static [&'static str],
    /// Dense bf16 peak in TFLOPS.
    pub bf16_tflops: f64,
    /// Dense fp8 peak in TFLOPS; `None` where fp8 weights are widened and multiplied in bf16.
    pub fp8_tflops: Option<f64>,
    /// Memory bandwidth in GB/s.
    pub memory_gbps: f64,
    /// Memory that a process sees, in GiB.
    pub memory_gib: f64,
    /// Link to a peer in the same node (NVLink, xGMI or PCIe), GB/s in one direction.
    pub link_gbps: f64,
    /// Share of the bf16 peak that large GEMMs reach.
    pub gemm_eff: f64,
    /// Share of the fp8 peak that large GEMMs reach.
    pub gemm_eff_fp8: f64,
    /// Share of the memory bandwidth that reading weights reaches.
    pub memory_eff: f64,
    /// Share of the memory bandwidth that decode attention reaches.
    pub kv_eff: f64,
    /// Share of the bf16 peak that prefill attention reaches.
    pub attention_eff: f64,
    /// Fixed time of one GEMM in microseconds.
    pub gemm_us: f64,
    /// All-reduces by ranks, ascending.
    pub all_reduce: [AllReduce; 3],
}

/// alpha (us) and bandwidth (GB/s) at 2, 4 and 8 ranks.
const fn reduce(two: (f64, f64), four: (f64, f64), eight: (f64, f64)) -> [AllReduce; 3] {
    [
        AllReduce { ranks: 2, alpha_us: two.0, gbytes_per_s: two.1 },
        AllReduce { ranks: 4, alpha_us: four.0, gbytes_per_s: four.1 },
        AllReduce { ranks: 8, alpha_us: eight.0, gbytes_per_s: eight.1 },
    ]
}

const A100_REDUCE: [AllReduce; 3] = reduce((5.0, 171.0), (5.8, 115.0), (7.5, 101.0));
const H100_REDUCE: [AllReduce; 3] = reduce((4.3, 262.0), (5.0, 194.0), (5.7, 205.0));
const B200_REDUCE: [AllReduce; 3] = reduce((7.6, 407.0), (8.0, 327.0), (9.4, 325.0));
const PCIE4_REDUCE: [AllReduce; 3] = reduce((5.3, 19.0), (12.6, 2.6), (22.8, 1.2));
const PCIE5_REDUCE: [AllReduce; 3] = reduce((4.3, 38.0), (13.9, 17.0), (27.7, 12.0));

const H100_SXM: GpuSpec = GpuSpec {
    name: "H100-SXM",
    aliases: &["H100", "H100-SXM-80G", "H100-SXM5-80GB", "H100-80GB", "H100-80GB-HBM3"],
    bf16_tflops: 989.0,
    fp8_tflops: Some(1979.0),
    memory_gbps: 3350.0,
    memory_gib: 79.6,
    link_gbps: 450.0,
    gemm_eff: 0.81,
    gemm_eff_fp8: 0.49,
    memory_eff: 0.87,
    kv_eff: 0.88,
    attention_eff: 0.67,
    gemm_us: 3.8,
    all_reduce: H100_REDUCE,
};

const A100_SXM_80G: GpuSpec = GpuSpec {
    name: "A100-SXM-80G",
    aliases: &["A100", "A100-80G", "A100-80GB", "A100-SXM", "A100-SXM4-80GB"],
    bf16_tflops: 312.0,
    fp8_tflops: None,
    memory_gbps: 2039.0,
    memory_gib: 80.0,
    link_gbps: 300.0,
    gemm_eff: 0.84,
    gemm_eff_fp8: 0.84,
    memory_eff: 0.77,
    kv_eff: 0.72,
    attention_eff: 0.58,
    gemm_us: 6.0,
    all_reduce: A100_REDUCE,
};

const B200: GpuSpec = GpuSpec {
    name: "B200",
    aliases: &["B200-SXM", "HGX-B200"],
    bf16_tflops: 2250.0,
    fp8_tflops: Some(4500.0),
    memory_gbps: 8000.0,
    memory_gib: 179.0,
    link_gbps: 900.0,
    gemm_eff: 0.72,
    gemm_eff_fp8: 0.46,
    memory_eff: 0.82,
    kv_eff: 0.88,
    attention_eff: 0.57,
    gemm_us: 3.8,
    all_reduce: B200_REDUCE,
};

const L40S: GpuSpec = GpuSpec {
    name: "L40S",
    aliases: &[],
    bf16_tflops: 362.0,
    fp8_tflops: Some(733.0),
    memory_gbps: 864.0,
    memory_gib: 45.0,
    link_gbps: 32.0,
    gemm_eff: 0.64,
    gemm_eff_fp8: 0.56,
    memory_eff: 0.81,
    kv_eff: 0.84,
    attention_eff: 0.52,
    gemm_us: 0.0,
    all_reduce: PCIE4_REDUCE,
};

const GPUS: &[GpuSpec] = &[
    H100_SXM,
    // Carried over from H100-SXM, with PCIe 5 between the GPUs.
    GpuSpec {
        name: "H100-PCIe-80G",
        aliases: &["H100-PCIe", "H100-PCIe-80GB"],
        bf16_tflops: 756.0,
        fp8_tflops: Some(1513.0),
        memory_gbps: 2000.0,
        link_gbps: 64.0,
        all_reduce: PCIE5_REDUCE,
        ..H100_SXM
    },
    GpuSpec {
        name: "H200",
        aliases: &["H200-SXM", "H200-141GB"],
        memory_gbps: 4800.0,
        memory_gib: 140.4,
        gemm_eff: 0.80,
        gemm_eff_fp8: 0.55,
        memory_eff: 0.84,
        kv_eff: 0.86,
        attention_eff: 0.66,
        gemm_us: 4.1,
        all_reduce: reduce((4.5, 271.0), (4.9, 200.0), (5.6, 216.0)),
        ..H100_SXM
    },
    A100_SXM_80G,
    GpuSpec {
        name: "A100-SXM-40G",
        aliases: &["A100-40G", "A100-40GB", "A100-SXM4-40GB"],
        memory_gbps: 1555.0,
        memory_gib: 40.0,
        ..A100_SXM_80G
    },
    // Carried over from A100-SXM, with PCIe 4 between the GPUs.
    GpuSpec {
        name: "A100-PCIe",
        aliases: &["A100-PCIe-80G", "A100-80GB-PCIe"],
        memory_gbps: 1935.0,
        link_gbps: 32.0,
        all_reduce: PCIE4_REDUCE,
        ..A100_SXM_80G
    },
    B200,
    // All-reduce measured on GB300.
    GpuSpec {
        name: "B300",
        aliases: &["B300-SXM"],
        memory_gib: 268.0,
        gemm_eff: 0.79,
        gemm_eff_fp8: 0.49,
        memory_eff: 0.80,
        kv_eff: 0.90,
        attention_eff: 0.71,
        gemm_us: 3.4,
        all_reduce: reduce((8.1, 432.0), (8.9, 337.0), (13.8, 352.0)),
        ..B200
    },
    GpuSpec {
        name: "GB200",
        aliases: &["GB200-NVL72"],
        bf16_tflops: 2500.0,
        fp8_tflops: Some(5000.0),
        memory_gib: 185.0,
        gemm_eff: 0.66,
        memory_eff: 0.80,
        kv_eff: 0.92,
        attention_eff: 0.53,
        gemm_us: 3.7,
        ..B200
    },
    L40S,
    // Carried over from L40S.
    GpuSpec {
        name: "L4",
        bf16_tflops: 121.0,
        fp8_tflops: Some(242.0),
        memory_gbps: 300.0,
        memory_gib: 22.5,
        ..L40S
    },
    // Carried over from L40S; Ampere has no fp8 units.
    GpuSpec {
        name: "A10G",
        aliases: &["A10"],
        bf16_tflops: 70.0,
        fp8_tflops: None,
        memory_gbps: 600.0,
        memory_gib: 22.5,
        ..L40S
    },
    GpuSpec {
        name: "RTX-PRO-6000",
        aliases: &["RTX PRO 6000", "RTX-PRO-6000-Blackwell"],
        bf16_tflops: 504.0,
        fp8_tflops: Some(1007.0),
        memory_gbps: 1792.0,
        memory_gib: 95.6,
        link_gbps: 64.0,
        gemm_eff: 0.86,
        gemm_eff_fp8: 0.82,
        memory_eff: 0.87,
        kv_eff: 0.89,
        attention_eff: 0.65,
        gemm_us: 2.2,
        all_reduce: PCIE5_REDUCE,
    },
    // No measured rows: the efficiencies are assumptions on the careful side, the all-reduces H100's.
    GpuSpec {
        name: "MI300X",
        aliases: &["AMD-MI300X"],
        bf16_tflops: 1307.0,
        fp8_tflops: Some(2615.0),
        memory_gbps: 5300.0,
        memory_gib: 192.0,
        link_gbps: 448.0,
        gemm_eff: 0.55,
        gemm_eff_fp8: 0.40,
        memory_eff: 0.75,
        kv_eff: 0.75,
        attention_eff: 0.45,
        gemm_us: 6.0,
        ..H100_SXM
    },
];

/// The GPU called `name`, without regard to case, separators or a leading `NVIDIA`.
pub fn gpu(name: &str) -> Option<&'static GpuSpec> {
    let wanted = folded(name);
    let wanted = wanted.strip_prefix("nvidia").unwrap_or(&wanted);
    let is = |known: &&str| folded(known) == wanted;
    GPUS.iter().find(|gpu| is(&gpu.name) || gpu.aliases.iter().any(is))
}

/// Every GPU name of the catalogue, for messages.
pub fn gpu_names() -> impl Iterator<Item = &'static str> {
    GPUS.iter().map(|gpu| gpu.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_resolve() {
        for (asked, want) in [
            ("H100", "H100-SXM"),
            ("NVIDIA H100 80GB HBM3", "H100-SXM"),
            ("h100_pcie_80g", "H100-PCIe-80G"),
            ("A100-SXM-80G", "A100-SXM-80G"),
            ("a100-40gb", "A100-SXM-40G"),
            ("rtx pro 6000", "RTX-PRO-6000"),
            ("mi300x", "MI300X"),
        ] {
            assert_eq!(gpu(asked).map(|g| g.name), Some(want), "{asked}");
        }
        assert!(gpu("TPU").is_none());
        assert!(gpu_names().all(|name| gpu(name).is_some()));
    }

    #[test]
    fn no_two_entries_answer_to_one_name() {
        let mut seen = std::collections::HashSet::new();
        for gpu in GPUS {
            assert!(seen.insert(folded(gpu.name)), "{}", gpu.name);
            for alias in gpu.aliases {
                assert!(folded(alias) == folded(gpu.name) || seen.insert(folded(alias)), "{alias}");
            }
        }
    }

    #[test]
    fn constants_are_physical() {
        for gpu in GPUS {
            let shares =
                [gpu.gemm_eff, gpu.gemm_eff_fp8, gpu.memory_eff, gpu.kv_eff, gpu.attention_eff];
            assert!(shares.iter().all(|share| (0.1..=1.0).contains(share)), "{}", gpu.name);
            assert!(gpu.all_reduce.windows(2).all(|pair| pair[0].ranks < pair[1].ranks));
        }
    }
}

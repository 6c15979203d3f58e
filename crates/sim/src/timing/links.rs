//! Where the ranks of one instance sit, and what moving bytes between them costs.
//!
//! Ranks are placed tensor-parallel first, so a tensor-parallel group shares a node as long as it fits.

use crate::catalog::{AllReduce, GpuSpec};

/// How an instance is spread over GPUs and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Pipeline stages.
    pub pp: u32,
    /// Nodes that one instance spans.
    pub nodes: u32,
}

impl Layout {
    /// GPUs of one instance.
    pub fn gpus(self) -> u32 {
        self.tp * self.pp
    }

    /// Whether a tensor-parallel group spans nodes.
    pub fn tp_spans_nodes(self) -> bool {
        self.nodes > 1 && self.tp * self.nodes > self.gpus()
    }

    /// Stage boundaries within a node, and across nodes.
    pub fn boundaries(self) -> (u32, u32) {
        let all = self.pp.saturating_sub(1);
        let across = if self.tp_spans_nodes() { all } else { all.min(self.nodes - 1) };
        (all - across, across)
    }
}

/// How nodes talk to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InterNode {
    /// TCP through the kernel, as on plain Ethernet.
    ///
    /// 70 us a hop and at most 3.5 GB/s: the published Llama-2-70B run with TP4 split 2+2 over 100 GbE
    /// has 0.68 ms per 512 KiB all-reduce, and these two numbers reproduce it over a ring of 6 hops.
    #[default]
    Sockets,
    /// RoCE or InfiniBand with GPU-direct: 8 us a hop and 0.85 of the line rate.
    Rdma,
}

/// The links of one deployment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fabric {
    /// Line rate between nodes in Gbit/s.
    pub inter_node_gbps: f64,
    /// Transport between nodes.
    pub inter_node: InterNode,
}

const SOCKET_GBYTES: f64 = 3.5;
const SOCKET_SHARE: f64 = 0.9;
const RDMA_SHARE: f64 = 0.85;
/// Point-to-point latency between GPUs of one node (the p2p constant of AIConfigurator's system files).
const PEER_ALPHA_S: f64 = 10e-6;

impl Fabric {
    /// Latency of one hop between nodes in seconds.
    fn hop_alpha(self) -> f64 {
        match self.inter_node {
            InterNode::Sockets => 70e-6,
            InterNode::Rdma => 8e-6,
        }
    }

    /// Bytes per second between two nodes.
    fn bytes_per_s(self) -> f64 {
        let line = self.inter_node_gbps / 8.0 * 1e9;
        match self.inter_node {
            InterNode::Sockets => (line * SOCKET_SHARE).min(SOCKET_GBYTES * 1e9),
            InterNode::Rdma => line * RDMA_SHARE,
        }
    }

    /// Seconds for one all-reduce of `bytes` over the tensor-parallel group.
    ///
    /// Within a node: `alpha + bytes / B` with the fitted constants of the GPU. Across nodes: one flat
    /// ring, `2(t-1)·alpha + 2(t-1)/t · bytes / B`, each hop at the speed of the slowest.
    pub(super) fn all_reduce(self, layout: Layout, gpu: &GpuSpec, bytes: f64) -> f64 {
        if layout.tp <= 1 {
            return 0.0;
        }
        if layout.tp_spans_nodes() {
            let ranks = f64::from(layout.tp);
            let hops = 2.0 * (ranks - 1.0);
            return hops * self.hop_alpha() + hops / ranks * bytes / self.bytes_per_s();
        }
        let (alpha_s, bytes_per_s) = within_node(&gpu.all_reduce, layout.tp);
        alpha_s + bytes / bytes_per_s
    }

    /// Seconds that one microbatch of `bytes` spends between stages, including the way back of its
    /// sampled tokens to the first stage.
    pub(super) fn stage_hops(self, layout: Layout, gpu: &GpuSpec, bytes: f64) -> f64 {
        if layout.pp <= 1 {
            return 0.0;
        }
        let (within, across) = layout.boundaries();
        let peer = PEER_ALPHA_S + bytes / (gpu.link_gbps * 1e9);
        let network = self.hop_alpha() + bytes / self.bytes_per_s();
        let back = if layout.nodes > 1 { self.hop_alpha() } else { PEER_ALPHA_S };
        f64::from(within) * peer + f64::from(across) * network + back
    }
}

/// Latency (s) and bandwidth (B/s) of an all-reduce over `ranks`: linear in the rank count between
/// the measured sizes, and beyond the largest with latency in proportion to the ranks.
fn within_node(table: &[AllReduce; 3], ranks: u32) -> (f64, f64) {
    let upper = table.iter().position(|entry| ranks <= entry.ranks);
    let (alpha_us, gbytes) = match upper {
        Some(0) => (table[0].alpha_us, table[0].gbytes_per_s),
        Some(i) => {
            let (low, high) = (table[i - 1], table[i]);
            let share = f64::from(ranks - low.ranks) / f64::from(high.ranks - low.ranks);
            let between = |a: f64, b: f64| a + share * (b - a);
            (between(low.alpha_us, high.alpha_us), between(low.gbytes_per_s, high.gbytes_per_s))
        }
        None => {
            let last = table[2];
            let ratio = f64::from(ranks) / f64::from(last.ranks);
            (last.alpha_us * ratio, last.gbytes_per_s)
        }
    };
    (alpha_us * 1e-6, gbytes * 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::gpu;

    const ETHERNET: Fabric = Fabric { inter_node_gbps: 100.0, inter_node: InterNode::Sockets };

    #[test]
    fn ring_over_sockets_reproduces_the_published_run() {
        let layout = Layout { tp: 4, pp: 1, nodes: 2 };
        let seconds = ETHERNET.all_reduce(layout, gpu("A100").unwrap(), 512.0 * 1024.0);
        assert!((seconds / 0.68e-3 - 1.0).abs() < 0.1, "{seconds}");
    }

    #[test]
    fn placement_is_tensor_parallel_first() {
        let case = |tp, pp, nodes| Layout { tp, pp, nodes };
        assert!(!case(4, 2, 2).tp_spans_nodes());
        assert!(case(8, 1, 2).tp_spans_nodes());
        assert_eq!(case(4, 2, 2).boundaries(), (0, 1));
        assert_eq!(case(2, 4, 2).boundaries(), (2, 1));
        assert_eq!(case(1, 1, 1).boundaries(), (0, 0));
    }

    #[test]
    fn all_reduce_between_measured_sizes_lies_between() {
        let table = &gpu("H100").unwrap().all_reduce;
        let (two, three, four) =
            (within_node(table, 2).0, within_node(table, 3).0, within_node(table, 4).0);
        assert!(two < three && three < four);
        assert!(within_node(table, 16).0 > within_node(table, 8).0);
    }
}

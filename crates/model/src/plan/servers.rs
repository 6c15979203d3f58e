//! Where an instance is reached: one server, or several before its data-parallel ranks.

use super::{EntryPlan, InstancePlan, ProcessPlan};
use serde::{Deserialize, Serialize};

/// What spreads requests over the data-parallel ranks of an instance.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum DpBalance {
    /// The engine: one server for all ranks, on the first host.
    #[default]
    Internal,
    /// The engine on each host, which has a server for its own ranks; over hosts who sends the requests.
    Hybrid,
    /// Who sends the requests: each rank has a server.
    External,
}

impl DpBalance {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Hybrid => "hybrid",
            Self::External => "external",
        }
    }
}

/// A server, and the data-parallel ranks that it passes requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RankedServer {
    /// Base URL, without a path.
    pub url: String,
    /// So many ranks, which it numbers from 0.
    pub ranks: u32,
}

impl InstancePlan {
    /// GPUs of one data-parallel rank.
    pub const fn gpus_per_rank(&self) -> u32 {
        self.tp * self.pp
    }

    /// Hosts that have servers of this instance, in rank order, and how many. Where a platform chooses
    /// hosts, one that has no name.
    pub fn servers_by_host(&self) -> Vec<(&str, u16)> {
        let ranks = |gpus: usize| {
            let ranks = gpus / usize::try_from(self.gpus_per_rank().max(1)).unwrap_or(usize::MAX);
            u16::try_from(ranks).unwrap_or(u16::MAX)
        };
        let places = self.place.iter();
        match self.dp_balance.unwrap_or_default() {
            _ if self.place.is_empty() => vec![("", 1)],
            DpBalance::Internal => places.take(1).map(|p| (p.host.as_str(), 1)).collect(),
            DpBalance::Hybrid => places.map(|p| (p.host.as_str(), 1)).collect(),
            DpBalance::External => places.map(|p| (p.host.as_str(), ranks(p.ids.len()))).collect(),
        }
    }

    /// Host and port of each of its servers, in rank order. On every host the first has the port of the
    /// instance, and further ones those after it.
    pub fn servers(&self) -> Vec<(&str, u16)> {
        let on = |(host, count)| (0..count).map(move |n| (host, self.port.saturating_add(n)));
        self.servers_by_host().into_iter().flat_map(on).collect()
    }
}

/// Base URLs of the ports `name` of instance `index`, in the order of its `processes`.
pub(super) fn port_urls<'a>(
    processes: &'a [ProcessPlan],
    index: u32,
    name: &'a str,
) -> impl Iterator<Item = String> {
    let mine = processes.iter().filter(move |p| p.instance == Some(index));
    let ports = mine.flat_map(|p| &p.ports).filter(move |port| port.name == name);
    ports.map(|port| format!("http://{}:{}", port.addr, port.port))
}

/// The base URL of the first of those ports.
pub(super) fn port_url(processes: &[ProcessPlan], index: u32, name: &str) -> Option<String> {
    port_urls(processes, index, name).next()
}

/// The servers of `instances` that choose between several ranks.
pub(super) fn ranked_servers(
    instances: &[InstancePlan],
    processes: &[ProcessPlan],
) -> Vec<RankedServer> {
    let of = |instance: &InstancePlan| {
        let urls: Vec<String> = port_urls(processes, instance.index, "http").collect();
        let ranks = instance.dp / u32::try_from(urls.len().max(1)).unwrap_or(u32::MAX);
        urls.into_iter().map(move |url| RankedServer { url, ranks })
    };
    instances.iter().flat_map(of).filter(|server| server.ranks > 1).collect()
}

/// An entry a server of `instance`, where `addr` says the address of a host.
pub(super) fn entries(instance: &InstancePlan, addr: impl Fn(&str) -> String) -> Vec<EntryPlan> {
    let entry = |(host, port)| EntryPlan {
        url: format!("http://{}:{port}", addr(host)),
        instance: Some(instance.index),
    };
    instance.servers().into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{HostGpus, Role};

    fn instance(dp_balance: DpBalance) -> InstancePlan {
        let place = |host: &str| HostGpus { host: host.into(), ids: vec![0, 1, 2, 3] };
        InstancePlan {
            index: 0,
            role: Role::Aggregated,
            tp: 2,
            pp: 1,
            dp: 4,
            dp_balance: Some(dp_balance),
            ep: None,
            place: vec![place("a"), place("b")],
            port: 8000,
        }
    }

    #[test]
    fn servers_are_one_an_instance_one_a_host_or_one_a_rank() {
        let of = |balance| {
            instance(balance)
                .servers()
                .into_iter()
                .map(|(h, p)| format!("{h}:{p}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(DpBalance::Internal), ["a:8000"]);
        assert_eq!(of(DpBalance::Hybrid), ["a:8000", "b:8000"]);
        assert_eq!(of(DpBalance::External), ["a:8000", "a:8001", "b:8000", "b:8001"]);
    }

    #[test]
    fn where_a_platform_chooses_the_host_there_is_one_server() {
        let mut anywhere = instance(DpBalance::Internal);
        anywhere.place.clear();
        assert_eq!(anywhere.servers(), [("", 8000)]);
    }
}

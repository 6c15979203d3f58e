//! Reads `place`: where the ranks of one instance run.

use super::Host;
use crate::plan::HostGpus;
use std::collections::BTreeMap;

/// Reads `"host"`, `"host:0-3"`, `"host:0,2"` or `"a:0-3 + b:0-3"`.
///
/// A host without ids means all its GPUs.
///
/// # Errors
/// In words: an unknown host, ids that are no numbers, or not on the host.
pub fn parse_place(text: &str, hosts: &BTreeMap<String, Host>) -> Result<Vec<HostGpus>, String> {
    text.split('+').map(|part| parse_part(part.trim(), hosts)).collect()
}

fn parse_part(part: &str, hosts: &BTreeMap<String, Host>) -> Result<HostGpus, String> {
    let (name, ids) = match part.split_once(':') {
        Some((name, ids)) => (name.trim(), Some(ids)),
        None => (part, None),
    };
    let (_, host) = find_host(name, hosts).ok_or_else(|| {
        let known = host_names(hosts);
        match super::diagnostic::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("unknown host '{name}'; did you mean '{near}'?"),
            None => format!("unknown host '{name}'; add [host.{name}]"),
        }
    })?;
    let ids = match ids {
        None => (0..host.gpus).collect(),
        Some(ids) => parse_ids(ids)?,
    };
    if let Some(id) = ids.iter().find(|id| **id >= host.gpus) {
        return Err(format!("GPU {id} is not on host '{name}', which has {}", gpus(host.gpus)));
    }
    Ok(HostGpus { host: name.to_owned(), ids })
}

fn gpus(n: u32) -> String {
    match n {
        0 => "none".to_owned(),
        1 => "one (id 0)".to_owned(),
        n => format!("{n} (ids 0 to {})", n - 1),
    }
}

fn parse_ids(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("'{text}' is not a list of GPU ids, as \"0-3\" or \"0,2\"");
    let mut ids = Vec::new();
    for part in text.split(',') {
        let (a, b) = match part.split_once('-') {
            Some((a, b)) => (a, b),
            None => (part, part),
        };
        let (a, b): (u32, u32) =
            (a.trim().parse().map_err(|_| wrong())?, b.trim().parse().map_err(|_| wrong())?);
        if a > b || b > 1_024 {
            return Err(wrong());
        }
        ids.extend(a..=b);
    }
    Ok(ids)
}

/// Names of all machines, with `count` spelt out.
pub fn host_names(hosts: &BTreeMap<String, Host>) -> Vec<String> {
    hosts
        .iter()
        .flat_map(|(name, host)| match host.count.unwrap_or(1) {
            1 => vec![name.clone()],
            n => (0..n.min(10_000)).map(|i| format!("{name}-{i}")).collect(),
        })
        .collect()
}

/// The table and the place in it of the machine called `name`.
pub fn find_host<'a>(name: &str, hosts: &'a BTreeMap<String, Host>) -> Option<(&'a str, &'a Host)> {
    if let Some((key, host)) = hosts.get_key_value(name)
        && host.count.unwrap_or(1) == 1
    {
        return Some((key, host));
    }
    let (stem, number) = name.rsplit_once('-')?;
    let (key, host) = hosts.get_key_value(stem)?;
    let number: u32 = number.parse().ok()?;
    (number < host.count.unwrap_or(1) && host.count != Some(1)).then_some((key, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> BTreeMap<String, Host> {
        let host = |gpus, count| Host {
            addr: None,
            ssh: None,
            gpus,
            gpu: None,
            iface: None,
            count,
            labels: BTreeMap::new(),
            env: BTreeMap::new(),
            price_per_hour: None,
        };
        [("head", host(4, None)), ("worker", host(4, None)), ("n", host(8, Some(2)))]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect()
    }

    fn show(text: &str) -> String {
        match parse_place(text, &hosts()) {
            Ok(parts) => {
                let parts: Vec<_> =
                    parts.iter().map(|p| format!("{}{:?}", p.host, p.ids)).collect();
                parts.join(" ")
            }
            Err(e) => e,
        }
    }

    #[test]
    fn places_are_read_or_refused_with_a_reason() {
        for (text, want) in [
            ("head", "head[0, 1, 2, 3]"),
            ("head:0-1", "head[0, 1]"),
            ("head:0,2", "head[0, 2]"),
            ("head:0-3 + worker:0-3", "head[0, 1, 2, 3] worker[0, 1, 2, 3]"),
            ("n-1:7", "n-1[7]"),
            ("n:7", "unknown host 'n'; did you mean 'n-0'?"),
            ("n-2:7", "unknown host 'n-2'; did you mean 'n-0'?"),
            ("haed:0", "unknown host 'haed'; did you mean 'head'?"),
            ("head:4", "GPU 4 is not on host 'head', which has 4 (ids 0 to 3)"),
            ("head:3-1", "'3-1' is not a list of GPU ids, as \"0-3\" or \"0,2\""),
            ("head:x", "'x' is not a list of GPU ids, as \"0-3\" or \"0,2\""),
        ] {
            assert_eq!(show(text), want, "{text}");
        }
    }
}

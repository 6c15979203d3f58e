//! D40 to D42: limits, CPUs and the clock of a host.

use super::{Verdict, fail, gib, pass, skip, unless};
use crate::doctor::facts::Limit;
use crate::doctor::sections::{Known, told};
use crate::doctor::seen::{Host, Seen};

/// What containers have by default, in bytes: ranks of one instance do not start with it.
const CONTAINER_SHM: u64 = 64 << 20;
/// In bytes; with a group of eight GPUs twice as much.
const AMPLE_SHM: u64 = 8 << 30;
/// Ray and vLLM hold sockets and files for every request and worker.
const OPEN_FILES: u64 = 65_536;
/// Two for the server and the system.
const SPARE_CPUS: u32 = 2;
/// Requests and readings of different hosts are laid over each other.
const CLOCK_MS: f64 = 50.0;

pub(super) fn some_shm(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.tensor_groups()?;
    let shm = *told(&host.facts()?.shm)?;
    let words = format!("/dev/shm has {}", gib(shm.size_bytes));
    if shm.size_bytes > CONTAINER_SHM {
        return pass(words);
    }
    fail(words, "start the container with --shm-size=16g or --ipc=host")
}

pub(super) fn ample_shm(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let widest = host.machine.tensor_groups()?.iter().map(Vec::len).max().unwrap_or(0);
    let shm = *told(&host.facts()?.shm)?;
    let want = if widest >= 8 { 2 * AMPLE_SHM } else { AMPLE_SHM };
    let words = format!("/dev/shm has {} free, {} wanted", gib(shm.free_bytes), gib(want));
    if shm.free_bytes >= want {
        return pass(words);
    }
    fail(words, "mount it larger (--shm-size, or mount -o remount,size=16g /dev/shm), or empty it")
}

pub(super) fn locked_memory(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.heavy()?;
    let facts = host.facts()?;
    if told(&facts.infiniband)?.is_empty() {
        return skip("the host has no InfiniBand or RoCE port, so nothing has to be locked");
    }
    match told(&facts.locked_memory_kib)? {
        Limit::Unlimited => pass("unlimited"),
        Limit::Of(kib) => fail(
            format!("{kib} KiB may be locked, and RDMA registers gigabytes"),
            "ulimit -l unlimited: limits.conf, LimitMEMLOCK=infinity, or --ulimit memlock=-1",
        ),
    }
}

pub(super) fn open_files(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.heavy()?;
    match told(&host.facts()?.open_files)? {
        Limit::Unlimited => pass("unlimited"),
        Limit::Of(n) if *n >= OPEN_FILES => pass(n.to_string()),
        Limit::Of(n) => fail(
            format!("{n} files may be open, {OPEN_FILES} wanted"),
            format!("ulimit -n {OPEN_FILES}: limits.conf, LimitNOFILE=, or --ulimit nofile"),
        ),
    }
}

pub(super) fn huge_pages(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.heavy()?;
    let (free, all) = *told(&host.facts()?.huge_pages)?;
    pass(format!("{free} of {all} free"))
}

pub(super) fn cgroup(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.machine.loading()?;
    match told(&host.facts()?.cgroup_memory_bytes)? {
        Limit::Unlimited => pass("no limit"),
        Limit::Of(bytes) => pass(gib(*bytes)),
    }
}

pub(super) fn cpus(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    let gpus = used_gpus(host)?;
    let cpus = *told(&host.facts()?.cpus)?;
    let want = gpus.saturating_add(SPARE_CPUS);
    let few = (cpus < want).then(|| format!("{cpus} CPUs for {gpus} GPUs, {want} wanted"));
    unless(
        few.into_iter().collect(),
        format!("{cpus} CPUs for {gpus} GPUs"),
        "steps wait for the CPU that launches them: ask for more CPUs, or use fewer GPUs",
    )
}

/// GPUs that the plan uses and that are there.
fn used_gpus(host: &Host<'_>) -> Known<u32> {
    let ids = host.machine.gpu_ids()?;
    told(&host.facts()?.gpus)?;
    Ok(u32::try_from(ids.len()).unwrap_or(u32::MAX))
}

pub(super) fn clock(_: &Seen<'_>, host: &Host<'_>) -> Verdict {
    host.facts()?;
    let clock = *told(&host.clock)?;
    let words = format!("{:+.1} ms, known to +-{:.1} ms", clock.offset_ms, clock.bound_ms);
    if clock.bound_ms >= CLOCK_MS {
        return skip(format!("the way there is too long to tell: {words}"));
    }
    // Certainly too far, or certainly near enough.
    if clock.offset_ms.abs() - clock.bound_ms > CLOCK_MS {
        return fail(words, "let chrony or systemd-timesyncd keep both clocks");
    }
    if clock.offset_ms.abs() + clock.bound_ms < CLOCK_MS {
        return pass(words);
    }
    skip(format!("too near to the limit to tell: {words}"))
}

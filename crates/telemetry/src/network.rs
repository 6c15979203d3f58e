//! Network interfaces and RDMA ports, by `/sys`.

use crate::readings::{Readings, Roots, Source, device, number};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Part, Quantity};
use std::path::{Path, PathBuf};

/// Every interface that is there at the time.
#[derive(Debug)]
pub(crate) struct Interfaces {
    dir: PathBuf,
    host: String,
}

impl Interfaces {
    /// # Errors
    /// Says why they cannot be read.
    pub(crate) fn open(roots: &Roots, host: &str) -> Result<Self, String> {
        let dir = roots.sys.join("class/net");
        std::fs::read_dir(&dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
        Ok(Self { dir, host: host.to_owned() })
    }
}

/// Files below `statistics`.
const COUNTERS: &[(&str, Quantity)] = &[
    ("rx_bytes", Quantity::Received),
    ("tx_bytes", Quantity::Sent),
    ("rx_packets", Quantity::ReceivedPackets),
    ("tx_packets", Quantity::SentPackets),
    ("rx_dropped", Quantity::ReceivedDrops),
    ("tx_dropped", Quantity::SentDrops),
];

impl Source for Interfaces {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        for name in names(&self.dir) {
            let dir = self.dir.join(&name);
            // What is a part of a bridge or a bond is counted by that one.
            if dir.join("master").exists() {
                continue;
            }
            let from = clock.now();
            let counter = |(file, quantity): &(&str, Quantity)| {
                Some((*quantity, number(&dir.join("statistics").join(file))?))
            };
            let mut values: Vec<(Quantity, f64)> = COUNTERS.iter().filter_map(counter).collect();
            values.extend(speed(&dir).map(|speed| (Quantity::LinkSpeed, speed)));
            out.add(&device(&self.host, Part::Nic, &name), from, clock.now(), &values);
        }
    }
}

/// `speed` is in Mbit/s, and -1 where it is not known; virtual links claim one that nothing keeps.
fn speed(interface: &Path) -> Option<f64> {
    let is_real = interface.join("device").exists();
    number(&interface.join("speed")).filter(|mbit| *mbit > 0.0 && is_real).map(|mbit| mbit * 1e6)
}

/// Ports of InfiniBand and RoCE adapters, whose traffic interfaces do not count.
#[derive(Debug)]
pub(crate) struct RdmaPorts {
    dir: PathBuf,
    host: String,
}

impl RdmaPorts {
    /// # Errors
    /// Says why there is none.
    pub(crate) fn open(roots: &Roots, host: &str) -> Result<Self, String> {
        let dir = roots.sys.join("class/infiniband");
        match names(&dir).is_empty() {
            true => Err(format!("{} has no adapter", dir.display())),
            false => Ok(Self { dir, host: host.to_owned() }),
        }
    }
}

/// The unit of `port_*_data`: four bytes.
const WORD_BYTES: f64 = 4.0;

impl Source for RdmaPorts {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        for adapter in names(&self.dir) {
            let ports = self.dir.join(&adapter).join("ports");
            for port in names(&ports) {
                let dir = ports.join(&port);
                let from = clock.now();
                let words = |file: &str| number(&dir.join("counters").join(file));
                let values: Vec<(Quantity, f64)> = [
                    (Quantity::Received, words("port_rcv_data").map(|n| n * WORD_BYTES)),
                    (Quantity::Sent, words("port_xmit_data").map(|n| n * WORD_BYTES)),
                    (Quantity::LinkSpeed, rate(&dir.join("rate"))),
                ]
                .into_iter()
                .filter_map(|(quantity, value)| Some((quantity, value?)))
                .collect();
                let name = format!("{adapter}:{port}");
                out.add(&device(&self.host, Part::Rdma, &name), from, clock.now(), &values);
            }
        }
    }
}

/// Bits per second from `200 Gb/sec (4X HDR)`.
fn rate(path: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let (number, rest) = text.trim().split_once(' ')?;
    rest.starts_with("Gb/sec").then(|| number.parse::<f64>().ok().map(|gbit| gbit * 1e9))?
}

/// Names in a directory, in order; none where there is no such directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::telemetry::Telemetry;
    use scalebeam_model::units::Nanos;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(source: &mut dyn Source) -> Telemetry {
        let mut readings = Readings::default();
        source.read(&ManualClock::default(), &mut readings);
        readings.finish(Nanos::from_secs(1), Vec::new())
    }

    fn value(telemetry: &Telemetry, name: &str, quantity: Quantity) -> Option<f64> {
        let is = |s: &&scalebeam_model::telemetry::Series| {
            s.device.name == name && s.quantity == quantity
        };
        telemetry.series.iter().find(is).map(|s| s.readings[0].value)
    }

    #[test]
    fn interfaces_are_counted_once_and_claim_no_speed_that_nothing_keeps() {
        let tree = tempfile::tempdir().unwrap();
        let net = tree.path().join("class/net");
        for (name, speed) in [("eth0", "25000\n"), ("bond0", "50000\n"), ("eth1", "-1\n")] {
            write(&net.join(name).join("statistics/rx_bytes"), "1000\n");
            write(&net.join(name).join("statistics/tx_bytes"), "18446744073709551615\n");
            write(&net.join(name).join("speed"), speed);
        }
        write(&net.join("eth0/device/vendor"), "x");
        write(&net.join("eth1/master/x"), "x");
        let roots = Roots { sys: tree.path().to_owned(), ..Roots::default() };
        let found = read(&mut Interfaces::open(&roots, "a").unwrap());
        assert_eq!(value(&found, "eth0", Quantity::Received), Some(1000.0));
        assert_eq!(value(&found, "eth0", Quantity::LinkSpeed), Some(25e9));
        assert_eq!(value(&found, "eth0", Quantity::SentDrops), None, "absent, not zero");
        assert_eq!(value(&found, "bond0", Quantity::LinkSpeed), None);
        assert_eq!(value(&found, "eth1", Quantity::Received), None, "a part of a bond");
    }

    #[test]
    fn rdma_counts_words_of_four_bytes() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { sys: tree.path().to_owned(), ..Roots::default() };
        let port = tree.path().join("class/infiniband/mlx5_0/ports/1");
        assert!(RdmaPorts::open(&roots, "a").unwrap_err().contains("no adapter"));
        write(&port.join("counters/port_rcv_data"), "250\n");
        write(&port.join("counters/port_xmit_data"), "1000\n");
        write(&port.join("rate"), "200 Gb/sec (4X HDR)\n");
        let found = read(&mut RdmaPorts::open(&roots, "a").unwrap());
        assert_eq!(value(&found, "mlx5_0:1", Quantity::Received), Some(1000.0));
        assert_eq!(value(&found, "mlx5_0:1", Quantity::Sent), Some(4000.0));
        assert_eq!(value(&found, "mlx5_0:1", Quantity::LinkSpeed), Some(200e9));
    }
}

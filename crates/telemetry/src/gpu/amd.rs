//! GPUs of AMD by what their driver shows below `/sys/class/drm`: no program, no library.

use crate::readings::{Readings, Roots, Source, number};
use scalebeam_model::clock::Clock;
use scalebeam_model::telemetry::{Device, Quantity};
use std::path::{Path, PathBuf};

/// AMD's number among the makers of PCI devices.
const VENDOR: &str = "0x1002";

/// Files of a card, what is in them, and what their number is multiplied with.
const CARD: [(&str, Quantity, f64); 4] = [
    ("gpu_busy_percent", Quantity::GpuBusy, 1.0),
    ("mem_busy_percent", Quantity::GpuMemoryBusy, 1.0),
    ("mem_info_vram_used", Quantity::GpuMemoryUsed, 1.0),
    ("mem_info_vram_total", Quantity::GpuMemoryTotal, 1.0),
];
/// The same of its sensors; of one quantity the first that is there. Newer cards have no averaged power.
const SENSORS: [(&str, Quantity, f64); 6] = [
    ("power1_average", Quantity::Power, 1e-6),
    ("power1_input", Quantity::Power, 1e-6),
    ("power1_cap", Quantity::PowerLimit, 1e-6),
    ("energy1_input", Quantity::Energy, 1e-6),
    ("freq1_input", Quantity::SmClock, 1e-6),
    ("freq2_input", Quantity::MemoryClock, 1e-6),
];

/// Every card of the maker.
#[derive(Debug)]
pub(crate) struct Cards(Vec<Card>);

#[derive(Debug)]
struct Card {
    device: Device,
    files: Vec<(PathBuf, Quantity, f64)>,
}

impl Cards {
    /// Nothing where the machine has no card of the maker.
    pub(crate) fn open(roots: &Roots, host: &str) -> Option<Self> {
        let entries = std::fs::read_dir(roots.sys.join("class/drm")).ok()?.flatten();
        let is_card =
            |name: &str| name.strip_prefix("card").is_some_and(|n| n.parse::<u32>().is_ok());
        let cards = entries.filter(|e| e.file_name().to_str().is_some_and(is_card));
        let cards = cards.map(|e| e.path().join("device"));
        let mut cards: Vec<(String, PathBuf)> =
            cards.filter(|dir| is_amd(dir)).map(|dir| (address(&dir), dir)).collect();
        // The maker's programs and libraries count in the order of addresses; other cards take numbers of drm too.
        cards.sort();
        let open = |(index, (address, dir)): (u32, &(String, PathBuf))| {
            Card::open(host, index, address, dir)
        };
        let cards: Vec<Card> = (0..).zip(&cards).map(open).collect();
        (!cards.is_empty()).then_some(Self(cards))
    }

    /// Whether each of them tells its power.
    pub(crate) fn tell_power(&self) -> bool {
        self.0.iter().all(|card| card.files.iter().any(|(_, q, _)| *q == Quantity::Power))
    }
}

impl Source for Cards {
    fn read(&mut self, clock: &dyn Clock, out: &mut Readings) {
        for card in &self.0 {
            let from = clock.now();
            let value = |(path, quantity, unit): &(PathBuf, Quantity, f64)| {
                Some((*quantity, number(path)? * unit))
            };
            let values: Vec<(Quantity, f64)> = card.files.iter().filter_map(value).collect();
            out.add(&card.device, from, clock.now(), &values);
        }
    }
}

impl Card {
    fn open(host: &str, index: u32, address: &str, dir: &Path) -> Self {
        let unique = text(&dir.join("unique_id")).filter(|id| !id.is_empty());
        let device = super::device(host, index, unique.as_deref().unwrap_or(address));
        let mut files: Vec<_> = CARD.iter().map(|(file, q, u)| (dir.join(file), *q, *u)).collect();
        if let Some(sensors) = sensors(dir) {
            files.extend(SENSORS.iter().map(|(file, q, u)| (sensors.join(file), *q, *u)));
            files.extend(hottest(&sensors).map(|file| (file, Quantity::Temperature, 1e-3)));
        }
        let mut seen = std::collections::BTreeSet::new();
        // A file may be there and refuse: a virtual function has sensors that only its host may read.
        files.retain(|(file, quantity, _)| number(file).is_some() && seen.insert(*quantity));
        Self { device, files }
    }
}

fn is_amd(dir: &Path) -> bool {
    text(&dir.join("vendor")).is_some_and(|vendor| vendor == VENDOR)
}

/// `0000:c1:00.0`; where the kernel does not say, the name of its directory.
fn address(dir: &Path) -> String {
    let events = text(&dir.join("uevent")).unwrap_or_default();
    let slot = events.lines().find_map(|line| line.strip_prefix("PCI_SLOT_NAME="));
    slot.map_or_else(|| dir.display().to_string(), str::to_owned)
}

fn sensors(dir: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(dir.join("hwmon")).ok()?.flatten().map(|e| e.path()).collect();
    found.sort();
    found.into_iter().next()
}

/// The chip's hottest point, which is what slows it down; where it has none, its edge.
fn hottest(sensors: &Path) -> Option<PathBuf> {
    let of = |label: &str| {
        let is = |n: &u32| {
            text(&sensors.join(format!("temp{n}_label"))).is_some_and(|found| found == label)
        };
        (1..4).find(is).map(|n| sensors.join(format!("temp{n}_input")))
    };
    of("junction").or_else(|| of("edge"))
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use scalebeam_model::clock::ManualClock;
    use scalebeam_model::telemetry::Telemetry;
    use scalebeam_model::units::Nanos;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    /// An MI300X as its driver shows it: power of now, no averaged one, no sensor at the edge.
    fn mi300x(card: &Path, slot: &str, id: &str, microwatts: &str) {
        write(
            card,
            &[
                ("device/vendor", "0x1002\n"),
                ("device/uevent", &format!("DRIVER=amdgpu\nPCI_SLOT_NAME={slot}\n")),
                ("device/unique_id", id),
                ("device/gpu_busy_percent", "97\n"),
                ("device/mem_info_vram_used", "183450583040\n"),
                ("device/mem_info_vram_total", "206141652992\n"),
                ("device/hwmon/hwmon7/power1_input", microwatts),
                ("device/hwmon/hwmon7/power1_cap", "750000000\n"),
                ("device/hwmon/hwmon7/temp2_label", "junction\n"),
                ("device/hwmon/hwmon7/temp2_input", "71000\n"),
                ("device/hwmon/hwmon7/freq1_input", "2100000000\n"),
            ],
        );
    }

    fn read(sys: &Path) -> Telemetry {
        let roots = Roots { sys: sys.to_owned(), ..Roots::default() };
        let mut readings = Readings::default();
        Cards::open(&roots, "a").unwrap().read(&ManualClock::default(), &mut readings);
        readings.finish(Nanos::from_secs(1), Vec::new())
    }

    fn value(found: &Telemetry, index: u32, quantity: Quantity) -> Option<f64> {
        let is = |s: &&scalebeam_model::telemetry::Series| {
            s.device.index == Some(index) && s.quantity == quantity
        };
        found.series.iter().find(is).map(|s| s.readings[0].value)
    }

    #[test]
    fn cards_are_numbered_by_their_address_and_read_in_our_units() {
        let tree = tempfile::tempdir().unwrap();
        let drm = tree.path().join("class/drm");
        // The board's own graphics come first, and are no GPU.
        write(&drm, &[("card0/device/vendor", "0x1a03\n"), ("version", "drm 1.1.0\n")]);
        mi300x(&drm.join("card1"), "0000:c1:00.0", "7b2cf5bb73a2e2dd\n", "141000000\n");
        mi300x(&drm.join("card9"), "0000:05:00.0", "5a1f5b9b0e5d0001\n", "742000000\n");
        let found = read(tree.path());
        for (index, watts) in [(0, 742.0), (1, 141.0)] {
            assert_eq!(value(&found, index, Quantity::Power), Some(watts));
        }
        let want = [
            (Quantity::GpuBusy, 97.0),
            (Quantity::GpuMemoryUsed, 183_450_583_040.0),
            (Quantity::GpuMemoryTotal, 206_141_652_992.0),
            (Quantity::PowerLimit, 750.0),
            (Quantity::Temperature, 71.0),
            (Quantity::SmClock, 2_100.0),
        ];
        for (quantity, want) in want {
            assert_eq!(value(&found, 0, quantity), Some(want), "{quantity:?}");
        }
        assert_eq!(value(&found, 0, Quantity::GpuMemoryBusy), None, "it does not tell");
        assert_eq!(found.series[0].device.name, "5a1f5b9b0e5d0001");
    }

    #[test]
    fn an_older_card_tells_an_averaged_power_and_its_edge() {
        let tree = tempfile::tempdir().unwrap();
        write(
            &tree.path().join("class/drm/card0/device"),
            &[
                ("vendor", "0x1002"),
                ("uevent", "PCI_SLOT_NAME=0000:03:00.0"),
                ("hwmon/hwmon2/power1_average", "205000000"),
                ("hwmon/hwmon2/power1_input", "300000000"),
                ("hwmon/hwmon2/temp1_label", "edge"),
                ("hwmon/hwmon2/temp1_input", "45000"),
                ("hwmon/hwmon2/energy1_input", "1234000000"),
            ],
        );
        let found = read(tree.path());
        assert_eq!(value(&found, 0, Quantity::Power), Some(205.0));
        assert_eq!(value(&found, 0, Quantity::Temperature), Some(45.0));
        assert_eq!(value(&found, 0, Quantity::Energy), Some(1_234.0));
        assert_eq!(found.series[0].device.name, "0000:03:00.0", "it has no id of its own");
    }

    #[test]
    fn machines_without_a_card_of_the_maker_have_none() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { sys: tree.path().to_owned(), ..Roots::default() };
        assert!(Cards::open(&roots, "a").is_none());
        write(&tree.path().join("class/drm"), &[("card0/device/vendor", "0x8086")]);
        assert!(Cards::open(&roots, "a").is_none());
    }
}

use super::*;

const DCGM: &str = include_str!("../fixtures/dcgm.txt");
const NODE: &str = include_str!("../fixtures/node_exporter.txt");

fn value(told: &Told, part: Part, name: &str, quantity: Quantity) -> Option<f64> {
    let (_, values) = told.iter().find(|(d, _)| d.part == part && d.name == name)?;
    values.iter().find(|(q, _)| *q == quantity).map(|(_, v)| *v)
}

#[test]
fn every_file_of_names_can_be_read() {
    for exporter in [Exporter::Dcgm, Exporter::Node] {
        let names: Names = toml::from_str(exporter.file()).unwrap();
        let sums = || names.device.iter().flat_map(|d| d.series.values()).flatten();
        assert!(sums().all(|sum| !sum.add.is_empty() && sum.scale > 0.0), "{exporter:?}");
    }
    assert!(series_names(Exporter::Node).contains(&"node_memory_MemAvailable_bytes"));
}

#[test]
fn gpus_of_a_page_are_read_in_our_units() {
    let told = read(Exporter::Dcgm, "node1", DCGM).unwrap();
    let of = |quantity| value(&told, Part::Gpu, "GPU-5e6f", quantity);
    let want = [
        // Two pods share it, and each has a row that says the same.
        (Quantity::Power, 512.193),
        (Quantity::Energy, 9_007_199.254),
        (Quantity::Temperature, 61.0),
        (Quantity::GpuBusy, 98.0),
        (Quantity::GpuMemoryUsed, 72_113.0 * 1_048_576.0),
        (Quantity::GpuMemoryTotal, 81_080.0 * 1_048_576.0),
        (Quantity::SmClock, 1_755.0),
        (Quantity::TensorActive, 33.75),
    ];
    for (quantity, want) in want {
        let found = of(quantity).unwrap_or_else(|| panic!("no {quantity:?}"));
        assert!((found / want - 1.0).abs() < 1e-12, "{quantity:?}: {found} is not {want}");
    }
    assert_eq!(of(Quantity::DramActive), None, "the page does not have it");
    assert_eq!(told.iter().map(|(d, _)| d.index).collect::<Vec<_>>(), [Some(0), Some(1)]);
}

#[test]
fn a_piece_of_a_gpu_tells_the_power_of_the_card_and_not_its_work() {
    let told = read(Exporter::Dcgm, "node1", DCGM).unwrap();
    let of = |quantity| value(&told, Part::Gpu, "GPU-7a8b", quantity);
    assert_eq!(of(Quantity::Power), Some(88.061));
    assert_eq!(of(Quantity::TensorActive), None);
}

#[test]
fn a_machine_of_a_page_is_read_as_we_read_our_own() {
    let told = read(Exporter::Node, "node1", NODE).unwrap();
    for (part, name, quantity, want) in [
        (Part::Host, "node1", Quantity::CpuBusy, 200.0),
        (Part::Host, "node1", Quantity::CpuAll, 16_313.0),
        (Part::Host, "node1", Quantity::CpuStolen, 2.5),
        (Part::Host, "node1", Quantity::MemoryUsed, 1.6e10),
        (Part::Nic, "eth0", Quantity::Received, 1.25e9),
        (Part::Nic, "eth0", Quantity::LinkSpeed, 1e10),
        (Part::Rdma, "mlx5_0:1", Quantity::Received, 4.096e12),
        (Part::Package, "rapl:0 package-0", Quantity::Energy, 1_234.5),
        (Part::Package, "rapl:0:0 dram", Quantity::Energy, 99.0),
    ] {
        assert_eq!(value(&told, part, name, quantity), Some(want), "{name} {quantity:?}");
    }
    assert_eq!(value(&told, Part::Nic, "wlan0", Quantity::LinkSpeed), None, "unknown is -1");
    assert_eq!(value(&told, Part::Host, "node1", Quantity::CpuPressure), None);
}

#[test]
fn a_page_of_something_else_is_no_page() {
    for page in ["", "<html>", "vllm:num_requests_running 1\n"] {
        assert!(read(Exporter::Dcgm, "a", page).unwrap_err().contains("dcgm-exporter"), "{page}");
    }
}

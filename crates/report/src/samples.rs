//! What machines did step by step, as rows that a model of power is fitted to.

use crate::records::{PLACE, Place, optional};
use scalebeam_model::plan::{DeploymentPlan, InstancePlan, Plan, Role};
use scalebeam_model::telemetry::samples::{DEVICE_COLUMNS, ENGINE_COLUMNS, Sample};
use std::io::{self, Write};

/// What tells rows apart: of a machine the columns of a GPU and of its instance are empty.
const NAMES: [&str; 11] =
    ["at_s", "seconds", "host", "device", "index", "gpu", "instance", "role", "tp", "pp", "dp"];

/// Writes samples trial by trial.
#[derive(Debug)]
pub struct SampleWriter<'a, W: Write> {
    plan: &'a Plan,
    out: csv::Writer<W>,
}

impl<'a, W: Write> SampleWriter<'a, W> {
    /// Begins, with the head of the table.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(plan: &'a Plan, out: W) -> io::Result<Self> {
        let mut out = csv::Writer::from_writer(out);
        let device = DEVICE_COLUMNS.iter().map(|(name, _)| name);
        let engine = ENGINE_COLUMNS.iter().map(|(name, _)| name);
        out.write_record(PLACE.iter().chain(&NAMES).chain(device).chain(engine))?;
        Ok(Self { plan, out })
    }

    /// Writes the samples of a trial.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, place: Place<'_>, samples: &[Sample]) -> io::Result<()> {
        let deployment = self.plan.deployment(place.deployment);
        let trial = place.trial.to_string();
        for sample in samples {
            let place = [place.deployment, place.load, place.level, &trial];
            let names = self.names(deployment, sample);
            let numbers = sample.device.iter().chain(&sample.engine).map(|n| optional(*n));
            let row = place.into_iter().map(str::to_owned).chain(names).chain(numbers);
            self.out.write_record(row)?;
        }
        Ok(())
    }

    fn names(&self, deployment: Option<&DeploymentPlan>, sample: &Sample) -> [String; 11] {
        let host = self.plan.hosts.iter().find(|h| h.name == sample.host);
        let gpu = host.and_then(|h| h.gpu.clone()).filter(|_| sample.index.is_some());
        let instances = deployment.map_or(&[][..], |d| d.instances.as_slice());
        let instance = instances.iter().find(|i| Some(i.index) == sample.instance);
        let degree = |of: fn(&InstancePlan) -> u32| optional(instance.map(of));
        [
            sample.at_s.to_string(),
            sample.seconds.to_string(),
            sample.host.clone(),
            sample.part.name().to_owned(),
            optional(sample.index),
            gpu.unwrap_or_default(),
            optional(sample.instance),
            sample.role.map_or("", Role::name).to_owned(),
            degree(|i| i.tp),
            degree(|i| i.pp),
            degree(|i| i.dp),
        ]
    }

    /// Hands over what waits.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

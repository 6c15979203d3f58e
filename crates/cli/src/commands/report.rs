//! `report`: results and charts of a run, made again from its records.

use crate::args::{RecordsArg, ReportArgs};
use crate::campaign::outcome::{self, Shown};
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::analysis;
use scalebeam_model::metrics::{self, METRICS, Metric};
use scalebeam_model::plan::PointPlan;
use scalebeam_model::request::{Phase, RequestRecord};
use scalebeam_model::stats::histogram::Histogram;
use scalebeam_model::telemetry::samples::Sample;
use scalebeam_record::{RecordError, RunReader, TrialReader};
use scalebeam_report::{Format, Place, PointHistogram, RecordFormat, RecordWriter, SampleWriter};
use std::ops::ControlFlow;

/// By how much a value may lie from the middle of its bucket, relative to itself.
const HISTOGRAM_ERROR: f64 = 0.01;

pub(super) fn run(args: &ReportArgs) -> Result<Status, Failure> {
    if let Some(format) = args.records {
        return records(&RunReader::open(&args.run)?, format);
    }
    if args.samples {
        return samples(&RunReader::open(&args.run)?);
    }
    if let Some(dir) = &args.power_logs {
        return super::power_logs::write(&RunReader::open(&args.run)?, dir);
    }
    if !args.histogram.is_empty() {
        return histograms(args);
    }
    let formats = args
        .format
        .iter()
        .map(|name| {
            Format::from_name(name).ok_or_else(|| {
                let known: Vec<_> = Format::ALL.iter().map(|f| f.name()).collect();
                Failure::usage(format!("no format '{name}'"))
                    .hint(format!("known are {}", known.join(", ")))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let shown = Shown::new(args.json, &args.define)?.with_percentiles(&args.percentiles);
    let reader = RunReader::open(&args.run)?;
    let formats = (!formats.is_empty()).then_some(formats);
    outcome::conclude(&reader, formats, &shown)
}

fn records(reader: &RunReader, format: RecordsArg) -> Result<Status, Failure> {
    let format = match format {
        RecordsArg::Csv => RecordFormat::Csv,
        RecordsArg::Jsonl => RecordFormat::Jsonl,
    };
    let mut failure = None;
    printer::stream(|out| {
        let mut out = RecordWriter::new(format, out)?;
        let mut written = Ok(());
        failure = each(reader, |place, record| {
            written = out.write(place, &record);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .err();
        written.and_then(|()| out.finish())
    });
    failure.map_or(Ok(Status::Ok), |f| Err(f.into()))
}

/// What the machines did, trial by trial.
fn samples(reader: &RunReader) -> Result<Status, Failure> {
    let plan = reader.plan();
    let mut failure = None;
    printer::stream(|out| {
        let mut out = SampleWriter::new(plan, out)?;
        for point in plan.every_point() {
            let found = match samples_of(reader, point) {
                Ok(found) => found,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            for (trial, samples) in found {
                out.write(place(point, trial), &samples)?;
            }
        }
        out.finish()
    });
    failure.map_or(Ok(Status::Ok), |f| Err(f.into()))
}

/// By number of the trial.
fn samples_of(
    reader: &RunReader,
    point: &PointPlan,
) -> Result<Vec<(u32, Vec<Sample>)>, RecordError> {
    let looks = reader.trials(point)?;
    let mut out = Vec::new();
    for trial in reader.measured_trials(point)? {
        let of_trial = looks.iter().find(|t| t.number() == Some(trial.number));
        let looks = of_trial.map(TrialReader::engine_looks).transpose()?.unwrap_or_default();
        let samples = analysis::samples(reader.plan(), point, &trial, &looks);
        out.push((trial.number, samples));
    }
    Ok(out)
}

fn place(point: &PointPlan, trial: u32) -> Place<'_> {
    let level = &point.level.label;
    Place { deployment: &point.deployment, load: &point.load, level, trial }
}

/// Every record of the run, in the order of the plan; those of searches come last.
fn each(
    reader: &RunReader,
    mut take: impl FnMut(Place<'_>, RequestRecord) -> ControlFlow<()>,
) -> Result<(), RecordError> {
    for point in reader.plan().every_point() {
        for trial in reader.trials(point)? {
            // A trial that was killed before it could say its number has no records.
            let place = place(point, trial.number().unwrap_or(0));
            let mut is_enough = false;
            trial.each(&mut |record| {
                let flow = take(place, record);
                is_enough = flow.is_break();
                flow
            })?;
            if is_enough {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn histograms(args: &ReportArgs) -> Result<Status, Failure> {
    let find = |name: &String| {
        let metric = metrics::find(name).filter(|m| m.is_of_requests());
        metric.ok_or_else(|| {
            let many = METRICS.iter().filter(|m| m.is_of_requests());
            let known: Vec<&str> = many.map(|m| m.name).collect();
            Failure::usage(format!("--histogram: '{name}' is no distribution"))
                .hint(format!("known are {}", known.join(", ")))
        })
    };
    let metrics = args.histogram.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let reader = RunReader::open(&args.run)?;
    let mut all: Vec<PointHistogram> = Vec::new();
    let mut samples = Vec::new();
    each(&reader, |place, record| {
        if record.phase != Phase::Measure {
            return ControlFlow::Continue(());
        }
        for metric in &metrics {
            samples.clear();
            metric.sample_one(&record, &mut samples);
            if !samples.is_empty() {
                let histogram = of_point(&mut all, place, metric);
                samples.iter().for_each(|value| histogram.add(*value));
            }
        }
        ControlFlow::Continue(())
    })?;
    if args.json {
        printer::json(&scalebeam_report::histograms_json(&all))?;
    } else {
        printer::data(&scalebeam_report::histograms_csv(&all)?);
    }
    Ok(Status::Ok)
}

/// The histogram of a metric at a point, made where there is none yet. Points come one after the other, so
/// it is among the last.
fn of_point<'a>(
    all: &'a mut Vec<PointHistogram>,
    place: Place<'_>,
    metric: &'static Metric,
) -> &'a mut Histogram {
    let is_same = |h: &PointHistogram| {
        h.metric.name == metric.name
            && h.deployment == place.deployment
            && h.load == place.load
            && h.level == place.level
    };
    let at = all.iter().rposition(is_same).unwrap_or_else(|| {
        let [deployment, load, level] =
            [place.deployment, place.load, place.level].map(str::to_owned);
        let histogram = Histogram::new(HISTOGRAM_ERROR);
        all.push(PointHistogram { deployment, load, level, metric, histogram });
        all.len() - 1
    });
    &mut all[at].histogram
}

//! `advise`: which measured deployment carries a load within an objective for the least money.

use super::compare::named;
use crate::args::AdviseArgs;
use crate::campaign::outcome;
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_fleet::journal::{self, Event};
use scalebeam_model::analysis::MeasuredPoint;
use scalebeam_model::analysis::advise::{Advice, Asked, Candidate, Demand, NoAdvice, advise};
use scalebeam_model::analysis::versus::Contender;
use scalebeam_model::cost::Prices;
use scalebeam_model::distinct::distinct;
use scalebeam_model::results::Results;
use scalebeam_model::slo::Slo;
use scalebeam_model::units::Nanos;
use scalebeam_record::RunReader;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn run(args: &AdviseArgs) -> Result<Status, Failure> {
    let slo = Slo::parse(&args.slo)
        .map_err(|e| Failure::usage(format!("--slo: {e}")).hint(e.hint.clone()))?;
    let prices = args.prices.as_deref().map(read_prices).transpose()?;
    let demand = match (args.rate, args.users) {
        (Some(rate), _) => Demand::Rps(rate),
        (None, users) => Demand::Users(f64::from(users.unwrap_or(1))),
    };
    let asked = Asked {
        slo: &slo,
        demand,
        headroom: args.headroom,
        utilisation: args.utilisation,
        terms: args.plan.map(Into::into),
        prices: prices.as_ref(),
        loads: &args.load,
        force: args.force,
    };
    let opened: Vec<Opened> =
        args.runs.iter().map(|text| Opened::new(text)).collect::<Result<_, _>>()?;
    known_loads(&opened, &args.load)?;
    let measured: Vec<Measured<'_>> = opened.iter().map(Measured::new).collect::<Result<_, _>>()?;
    let candidates: Vec<Candidate<'_>> = measured.iter().flat_map(Measured::candidates).collect();
    let advice = advise(&candidates, &asked).map_err(refusal)?;
    if args.json {
        printer::json(&advice)?;
    } else {
        printer::data(&scalebeam_report::advice(&advice, printer::width()));
    }
    Ok(status(&advice))
}

fn status(advice: &Advice) -> Status {
    match (advice.hangs_on_what_is_not_trusted(), advice.best()) {
        (true, _) => Status::NotTrustworthy,
        (false, None) => Status::ExpectationFailed,
        (false, Some(_)) => Status::Ok,
    }
}

fn read_prices(path: &Path) -> Result<Prices, Failure> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::usage(format!("--prices: cannot read {shown}: {e}"))
            .hint("name a TOML file with the keys of [prices], as [gpu.H100-SXM-80G]")
    })?;
    Prices::parse(&text, &shown).map_err(|d| Failure::usage(format!("--prices: {d}")))
}

fn refusal(error: NoAdvice) -> Failure {
    let hint = match error {
        NoAdvice::Unlike { .. } => {
            "measure all with one experiment file; --force weighs them all the same, and says what differs"
        }
        NoAdvice::SeveralWorkloads { .. } => "name the load that is meant, as --load users",
        NoAdvice::SeveralCurrencies { .. } => {
            "give one table that has a price for each of them, with --prices"
        }
        NoAdvice::NothingMeasured { .. } => {
            "run the experiment first, or resume it; --load must name a load of it"
        }
    };
    Failure::usage(error.to_string()).hint(hint)
}

/// A run, and the deployments of it that are meant.
struct Opened {
    reader: RunReader,
    deployments: Vec<String>,
}

impl Opened {
    fn new(text: &str) -> Result<Self, Failure> {
        let (dir, name) = named(text);
        if Path::new(dir).is_file() {
            return Err(not_measured(dir));
        }
        let reader = RunReader::open(Path::new(dir))?;
        let all = reader.plan().deployments.iter().map(|d| d.name.clone());
        let all: Vec<String> = all.collect();
        let deployments = match name {
            None => all,
            Some(name) if all.iter().any(|d| d == name) => vec![name.to_owned()],
            Some(name) => {
                return Err(Failure::usage(format!("{dir} has no deployment '{name}'"))
                    .hint(format!("it has {}", all.join(", "))));
            }
        };
        Ok(Self { reader, deployments })
    }
}

/// A load that no run has is a slip, and nothing that was not measured.
fn known_loads(opened: &[Opened], asked: &[String]) -> Result<(), Failure> {
    let points = opened.iter().flat_map(|o| o.reader.plan().every_point());
    let loads = distinct(points.map(|p| p.load.as_str()));
    match asked.iter().find(|name| !loads.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Failure::usage(format!("--load: no load '{name}' in what is looked at"))
            .hint(format!("known are {}", loads.join(", ")))),
    }
}

/// Advice is read from records, and a file has none.
fn not_measured(file: &str) -> Failure {
    Failure::usage(format!("{file} is a file, and advice is read from what was measured")).hint(format!(
        "run it first, as scalebeam run {file}, then name the run directory; with engine = \"emulated\" that needs no GPU"
    ))
}

/// A run with what is said of it.
struct Measured<'a> {
    opened: &'a Opened,
    points: Vec<MeasuredPoint<'a>>,
    results: Results,
    /// From start to first answer, by deployment.
    bring_up: BTreeMap<String, Nanos>,
}

impl<'a> Measured<'a> {
    fn new(opened: &'a Opened) -> Result<Self, Failure> {
        let reader = &opened.reader;
        let points = outcome::measured(reader)?;
        let results = outcome::analysed(reader, &points, &[])?;
        let journal = journal::of_measurement(reader.dir())?;
        Ok(Self { opened, points, results, bring_up: bring_up(&journal.entries) })
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        let reader = &self.opened.reader;
        self.opened.deployments.iter().map(|deployment| Candidate {
            contender: Contender {
                deployment,
                plan: reader.plan(),
                measured: &self.points,
                results: &self.results,
                tool: &reader.manifest().tool,
            },
            bring_up: self.bring_up.get(deployment).copied(),
        })
    }
}

/// How long each deployment took from its start until it had answered, the last time that it did.
fn bring_up(entries: &[journal::Entry]) -> BTreeMap<String, Nanos> {
    let mut started: BTreeMap<&str, u64> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for entry in entries {
        let Event::DeploymentState { deployment, to, .. } = &entry.event else { continue };
        match to.as_str() {
            "starting" => {
                started.insert(deployment, entry.at_unix_ns);
            }
            "verified" => {
                if let Some(from) = started.remove(deployment.as_str()) {
                    let took = Nanos(entry.at_unix_ns.saturating_sub(from));
                    out.insert(deployment.clone(), took);
                }
            }
            _ => {}
        }
    }
    out
}

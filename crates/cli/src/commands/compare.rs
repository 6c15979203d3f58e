//! `compare`: one deployment that was measured against another, of the same run or of two, or of several runs a side;
//! or result files of other tools.

use super::import;
use crate::args::{CompareArgs, FailOn};
use crate::campaign::outcome;
use crate::exit::{Failure, Status};
use crate::printer;
use scalebeam_model::analysis::MeasuredPoint;
use scalebeam_model::analysis::versus::{Asked, Contender, NotComparable, Versus, versus};
use scalebeam_model::import::ImportedFile;
use scalebeam_model::import::beside::{NotBeside, beside};
use scalebeam_model::metrics::{self, Better, catalogue, hint_for};
use scalebeam_model::results::Results;
use scalebeam_model::stats::percentile::split;
use scalebeam_record::RunReader;
use std::path::Path;

pub(super) fn run(args: &CompareArgs) -> Result<Status, Failure> {
    let sides = sides(args)?;
    let is_file = |text: &&String| Path::new(text.as_str()).is_file();
    match sides.iter().flat_map(|side| side.iter()).filter(is_file).count() {
        0 => runs(args, sides),
        n if n == sides[0].len() + sides[1].len() => files(args, sides),
        _ => Err(Failure::usage("a run cannot be compared with a result file")
            .hint("scalebeam export RUN --as vllm makes a file of it")),
    }
}

/// What is held against what: two by themselves, or what stands on either side of `--`.
fn sides(args: &CompareArgs) -> Result<[&[String]; 2], Failure> {
    let is_flag = |text: &&String| text.starts_with('-') && !Path::new(text.as_str()).exists();
    if let Some(flag) = args.second.iter().find(is_flag) {
        return Err(Failure::usage(format!("{flag} stands behind --, where runs are named"))
            .hint("options come before --"));
    }
    match (args.first.as_slice(), args.second.as_slice()) {
        ([_, _], []) => Ok([&args.first[..1], &args.first[1..]]),
        (_, []) => Err(Failure::usage(format!(
            "{} named, and two are compared",
            if args.first.len() == 1 {
                "one is".to_owned()
            } else {
                format!("{} are", args.first.len())
            }
        ))
        .hint("several that are repeats of one thing: scalebeam compare A1 A2 -- B1 B2")),
        (first, second) => Ok([first, second]),
    }
}

fn runs(args: &CompareArgs, sides: [&[String]; 2]) -> Result<Status, Failure> {
    let asked =
        Asked { margin: args.margin, metrics: asked_metrics(&args.metrics)?, force: args.force };
    let open = |side: &[String]| -> Result<Vec<Opened>, Failure> {
        side.iter().map(|text| Opened::new(text)).collect()
    };
    let (a, b) = (open(sides[0])?, open(sides[1])?);
    let (a, b) = (measured(&a, &asked)?, measured(&b, &asked)?);
    let [a, b] = [&a, &b].map(|side| side.iter().map(Measured::contender).collect::<Vec<_>>());
    let found = versus(&a, &b, &asked).map_err(refusal)?;
    if args.json {
        printer::json(&found)?;
    } else {
        printer::data(&scalebeam_report::versus(&found, printer::width()));
    }
    Ok(status(&found, args.fail_on))
}

fn measured<'a>(side: &'a [Opened], asked: &Asked<'_>) -> Result<Vec<Measured<'a>>, Failure> {
    side.iter().map(|opened| opened.measured(&asked.metrics)).collect()
}

/// Result files against others: ratios, with an interval where there are enough files a side.
fn files(args: &CompareArgs, sides: [&[String]; 2]) -> Result<Status, Failure> {
    if args.fail_on.is_some() || args.margin.is_some() || !args.metrics.is_empty() {
        return Err(Failure::usage(
            "--fail-on, --margin and --metrics are for runs: a result file does not say what runs differ by",
        ));
    }
    let (a, b) = (result_files(sides[0])?, result_files(sides[1])?);
    let found = beside(&a, &b, args.force).map_err(|error| {
        let hint = match error {
            NotBeside::Unlike(_) => "--force compares them all the same, and says so",
            NotBeside::NoRepeats { .. } => {
                "name files of one tool that was asked the same; --force takes them together all the same, and says so"
            }
            NotBeside::Copies(..) => "name each measurement once",
            NotBeside::NothingInCommon => {
                "points are matched by what they are called, else by requests at once and per second where only one of a side has these"
            }
        };
        Failure::usage(error.to_string()).hint(hint)
    })?;
    if args.json {
        printer::json(&found)?;
    } else {
        printer::data(&scalebeam_report::beside(&found, printer::width()));
    }
    Ok(Status::Ok)
}

/// Those of one side, each named once.
fn result_files(side: &[String]) -> Result<Vec<ImportedFile>, Failure> {
    let path = |path: &String| Path::new(path).canonicalize().unwrap_or_else(|_| path.into());
    let all: Vec<_> = side.iter().map(path).collect();
    if let Some(n) = (1..all.len()).find(|n| all[..*n].contains(&all[*n])) {
        return Err(Failure::usage(format!("{} is there twice on one side", side[n]))
            .hint("a file is no repeat of itself: name it once"));
    }
    side.iter().map(|path| result_file(path)).collect()
}

fn result_file(path: &str) -> Result<ImportedFile, Failure> {
    match import::read(Path::new(path))? {
        import::Read::Results(file) => Ok(file),
        import::Read::Log(_) => {
            Err(Failure::usage(format!("{path} is a power log, and results are compared")))
        }
    }
}

/// Names that can be compared: of a metric that is measured, has a better side, and has the statistic.
fn asked_metrics(names: &[String]) -> Result<Vec<&str>, Failure> {
    for name in names {
        let metric = metrics::find(split(name).0).filter(|_| catalogue::is_known(name));
        let Some(metric) = metric else {
            return Err(
                Failure::usage(format!("--metrics: no metric '{name}'")).hint(hint_for(name))
            );
        };
        if metric.better == Better::Neither {
            return Err(Failure::usage(format!("--metrics: neither way is '{name}' better"))
                .hint("it is a fact of the load; `report` shows it"));
        }
    }
    Ok(names.iter().map(String::as_str).collect())
}

fn status(found: &Versus, fail_on: Option<FailOn>) -> Status {
    let fails = match fail_on {
        Some(FailOn::Regression) => found.has_regression(),
        Some(FailOn::Difference) => found.has_difference(),
        None => false,
    };
    match (fails, found.is_trusted()) {
        (true, _) => Status::ExpectationFailed,
        (false, false) => Status::NotTrustworthy,
        (false, true) => Status::Ok,
    }
}

fn refusal(error: NotComparable) -> Failure {
    let hint = match error {
        NotComparable::Unlike { .. } => {
            "measure both with one experiment file; --force compares them all the same, with every number marked"
        }
        NotComparable::NoRepeats { .. } => {
            "runs of one side are repeats of one thing; --force takes them together all the same, with every number marked"
        }
        NotComparable::Twice { .. } => "a run is no repeat of itself: name it once",
        NotComparable::Itself { .. } => {
            "a run is no repeat of itself: name another run, or another deployment of it"
        }
        NotComparable::NothingInCommon { .. } => {
            "levels are matched by the names of their load and level; measure both under the same load"
        }
    };
    Failure::usage(error.to_string()).hint(hint)
}

/// A run, and the deployment of it that is meant.
struct Opened {
    reader: RunReader,
    deployment: String,
}

impl Opened {
    fn new(text: &str) -> Result<Self, Failure> {
        let (dir, name) = named(text);
        let reader = RunReader::open(Path::new(dir))?;
        let names: Vec<&str> = reader.plan().deployments.iter().map(|d| d.name.as_str()).collect();
        let deployment = match (name, names.as_slice()) {
            (Some(name), names) if names.contains(&name) => name,
            (None, [only]) => only,
            (name, names) => return Err(not_one(dir, name, names)),
        };
        let deployment = deployment.to_owned();
        Ok(Self { reader, deployment })
    }

    fn measured(&self, metrics: &[&str]) -> Result<Measured<'_>, Failure> {
        let points = outcome::measured(&self.reader)?;
        let results = outcome::analysed(&self.reader, &points, metrics)?;
        Ok(Measured { opened: self, points, results })
    }
}

/// `text` is a run directory, or one and a deployment behind a colon.
pub(super) fn named(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((dir, name)) if !Path::new(text).is_dir() => (dir, Some(name)),
        _ => (text, None),
    }
}

fn not_one(dir: &str, name: Option<&str>, names: &[&str]) -> Failure {
    let listed = names.join(", ");
    let example = names.first().copied().unwrap_or("DEPLOYMENT");
    let hint = format!("name one of {listed}, as {dir}:{example}");
    Failure::usage(match name {
        Some(name) => format!("{dir} has no deployment '{name}'"),
        None => format!("{dir} has {} deployments, and one is compared", names.len()),
    })
    .hint(hint)
}

/// A run with what is said of it.
struct Measured<'a> {
    opened: &'a Opened,
    points: Vec<MeasuredPoint<'a>>,
    results: Results,
}

impl Measured<'_> {
    fn contender(&self) -> Contender<'_> {
        let reader = &self.opened.reader;
        Contender {
            deployment: &self.opened.deployment,
            plan: reader.plan(),
            measured: &self.points,
            results: &self.results,
            tool: &reader.manifest().tool,
        }
    }
}

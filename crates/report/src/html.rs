//! One self-contained page: no script, nothing fetched, readable offline, on paper, light and dark.

use crate::chart::{self, Scene};
use crate::denominators;
use crate::engines;
use crate::error::ReportError;
use crate::fairness;
use crate::fronts;
use crate::glossary;
use crate::machines;
use crate::metric::Named;
use crate::number;
use crate::ran;
use crate::scaling;
use crate::spec::{Kind, ReportInput};
use crate::svg::svg;
use crate::table::{self, COLUMNS, Grid};
use askama::Template;
use scalebeam_model::results::{MetricValue, PointResult, Results, Skipped};
use scalebeam_model::trust::TrustLevel;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    name: &'a str,
    about: &'a str,
    model: &'a str,
    run: &'a str,
    is_incomplete: bool,
    /// Where, what, and what more there is to say of it.
    verdicts: Vec<(String, &'a str, &'a [String])>,
    no_verdict: Option<String>,
    trust: String,
    expectations: Option<String>,
    sections: Vec<SectionRows>,
    charts: Vec<Picture>,
    grids: Vec<Grid>,
    objectives: Vec<(String, bool, String)>,
    /// Point, and where it went.
    accounts: Vec<(String, String)>,
    /// Which study, and what it says.
    scaling: Vec<(String, &'a str)>,
    /// Point, and where the rest was lost.
    losses: Vec<(String, &'a str)>,
    failures: Vec<(String, String)>,
    skipped: Vec<SkippedRow<'a>>,
    comparisons: Vec<Vec<String>>,
    doubts: Vec<DoubtRow<'a>>,
    missing: Vec<(String, String)>,
    broken: Vec<ExpectRow<'a>>,
    held: Vec<ExpectRow<'a>>,
    details: Vec<Detail>,
    deployments: Vec<Vec<String>>,
    ran: Vec<ran::Row>,
    /// Deployments that were not the same throughout.
    changed: Vec<String>,
    glossary: Vec<glossary::Word>,
    tool: &'static str,
}

struct SectionRows {
    title: String,
    heads: Vec<(String, String)>,
    against: String,
    rows: Vec<PointRow>,
}

struct PointRow {
    name: String,
    cells: Vec<String>,
    ratio: String,
    trust: &'static str,
    level: &'static str,
}

struct Picture {
    title: String,
    svg: String,
    width: f64,
}

struct SkippedRow<'a> {
    name: &'a str,
    why: &'a str,
    rest: String,
}

struct DoubtRow<'a> {
    level: &'static str,
    word: &'static str,
    code: &'a str,
    points: String,
    message: String,
    next_step: &'a str,
}

struct ExpectRow<'a> {
    what: &'a str,
    point: &'a str,
    value: String,
    word: &'static str,
}

/// All numbers of a point.
struct Detail {
    id: String,
    outcomes: String,
    numbers: Vec<(String, String)>,
    distributions: Vec<Vec<String>>,
}

/// Makes the page; `charts` are drawn into it.
///
/// # Errors
/// When the page cannot be filled in, which would be a defect of the template.
pub fn html(input: &ReportInput<'_>, charts: &[Scene]) -> Result<String, ReportError> {
    let results = input.results;
    let metrics = COLUMNS.map(|(name, ..)| Named::new(name));
    let mut absences = table::absences(results, input.plan, &metrics);
    absences.extend(engines::absences(results));
    absences.extend(fairness::absences(&results.fairness));
    let (held, broken) = expects(input).into_iter().partition(|e| e.word == "holds");
    let searches = results
        .searches
        .iter()
        .map(|s| (format!("{} {}", s.load, s.deployment), s.text.as_str(), &[][..]));
    let page = Page {
        name: &results.name,
        about: input.plan.about.as_deref().unwrap_or(""),
        model: &input.plan.model.id,
        run: &results.run,
        is_incomplete: results.incomplete,
        verdicts: results
            .verdicts
            .iter()
            .map(|v| (format!("{} {}", v.load, v.level), v.text.as_str(), &v.more[..]))
            .chain(searches)
            .collect(),
        no_verdict: table::no_verdict(results),
        trust: trust_summary(results),
        expectations: table::expectations(results),
        sections: table::sections(results).iter().map(section_rows).collect(),
        charts: charts
            .iter()
            .enumerate()
            .map(|(i, scene)| Picture {
                title: scene.title.clone(),
                svg: inline(scene, i),
                width: scene.width,
            })
            .collect(),
        grids: input
            .specs
            .iter()
            .filter(|s| s.kind == Kind::Table)
            .map(|s| table::grid(results, s))
            .filter(|g| !g.rows.is_empty())
            .chain(denominators::grid(results, input.plan))
            .chain(table::parts(results))
            .chain(scaling::grids(results))
            .chain(scaling::loss_grid(results))
            .chain(fairness::grids(results))
            .chain(fronts::grids(results))
            .chain(machines::grid(results))
            .chain(machines::pods(results))
            .chain(engines::grids(results))
            .collect(),
        comparisons: comparisons(input),
        doubts: doubts(input),
        missing: absences,
        objectives: table::objectives(results),
        accounts: table::accounts(results),
        scaling: scaling::sentences(results),
        losses: scaling::losses(results),
        failures: table::failures(results),
        skipped: results.skipped.iter().map(skipped).collect(),
        broken,
        held,
        details: results.points.iter().map(detail).collect(),
        deployments: deployments(input),
        ran: ran::rows(results),
        changed: ran::changed(results),
        glossary: glossary::of(results),
        tool: env!("CARGO_PKG_VERSION"),
    };
    page.render().map_err(ReportError::Page)
}

/// Inside a page a picture takes the page's width and colours, needs no namespace, and names its
/// patterns apart from those of other pictures.
fn inline(scene: &Scene, number: usize) -> String {
    let size = format!(" width=\"{}\" height=\"{}\"", scene.width, scene.height);
    svg(scene)
        .replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
        .replacen(&size, "", 1)
        .replace("<pattern id=\"hatch", &format!("<pattern id=\"chart{number}-hatch"))
        .replace("fill=\"url(#hatch", &format!("fill=\"url(#chart{number}-hatch"))
}

/// How many points can be relied on.
fn trust_summary(results: &Results) -> String {
    let all = results.points.len();
    let of = |level| results.points.iter().filter(|p| p.trust.level == level).count();
    let (invalid, caution) = (of(TrustLevel::Invalid), of(TrustLevel::Caution));
    match (all, invalid, caution) {
        (0, ..) => String::new(),
        (1, 0, 0) => "the one point is sound".to_owned(),
        (_, 0, 0) => format!("all {all} points are sound"),
        _ => format!(
            "{} of {all} points sound, {caution} to be taken with caution, {invalid} INVALID",
            of(TrustLevel::Sound)
        ),
    }
}

fn skipped(skipped: &Skipped) -> SkippedRow<'_> {
    let (why, rest) = table::first_line(&skipped.reason);
    let rest: Vec<&str> = rest.iter().map(|l| l.trim_start()).collect();
    SkippedRow { name: &skipped.deployment, why, rest: rest.join("\n") }
}

fn section_rows(section: &table::Section<'_>) -> SectionRows {
    let against = section.against.as_ref();
    let columns = section.columns();
    SectionRows {
        title: section.title.clone(),
        heads: columns
            .iter()
            .map(|(_, top, below, _)| ((*top).to_owned(), (*below).to_owned()))
            .collect(),
        against: against.map_or(String::new(), |(m, b)| format!("{} vs {b}", m.short)),
        rows: section
            .points
            .iter()
            .map(|p| PointRow {
                name: table::row_name(p),
                cells: columns.iter().map(|(n, ..)| table::cell(&Named::new(n), p)).collect(),
                ratio: section.ratio(p),
                trust: table::trust_word(p.trust.level),
                level: p.trust.level.name(),
            })
            .collect(),
    }
}

fn comparisons(input: &ReportInput<'_>) -> Vec<Vec<String>> {
    let row = |c: &scalebeam_model::results::Comparison| {
        let metric = Named::new(&c.metric);
        let shown = |v: f64| number::in_unit(v * metric.scale(), &metric.unit);
        vec![
            c.load.clone(),
            c.level.clone(),
            metric.label.clone(),
            c.deployment.clone(),
            format!("{} {}", shown(c.value), metric.unit),
            format!("{} {}", shown(c.baseline_value), metric.unit),
            table::ratio(&c.ratio),
            chart::verdict_words(c.verdict).to_owned(),
        ]
    };
    input.results.comparisons.iter().map(row).collect()
}

fn doubts<'a>(input: &ReportInput<'a>) -> Vec<DoubtRow<'a>> {
    let row = |d: table::Doubt<'a>| DoubtRow {
        level: d.level.name(),
        word: table::trust_word(d.level),
        code: d.code,
        points: d.points.join(", "),
        message: d.message(),
        next_step: d.next_step,
    };
    table::doubts(input.results).into_iter().map(row).collect()
}

fn expects<'a>(input: &ReportInput<'a>) -> Vec<ExpectRow<'a>> {
    let row = |e: &'a scalebeam_model::results::ExpectResult| ExpectRow {
        what: &e.what,
        point: &e.point,
        value: table::expected_value(e),
        word: match (e.holds, e.not_checked, e.warn_only) {
            (true, ..) => "holds",
            (_, true, _) => "not checked",
            (.., true) => "warning",
            (.., false) => "failed",
        },
    };
    input.results.expects.iter().map(row).collect()
}

fn detail(point: &PointResult) -> Detail {
    let mut numbers = Vec::new();
    let mut distributions = Vec::new();
    for (name, value) in &point.metrics {
        match value {
            MetricValue::Number(n) => numbers.push((name.clone(), number::plain(*n))),
            MetricValue::Distribution(d) => {
                let mut row = vec![name.clone()];
                let values = [d.mean, d.std, d.min, d.p50, d.p90, d.p95, d.p99, d.p999, d.max];
                row.extend(values.map(number::plain));
                row.push(d.count.to_string());
                distributions.push(row);
            }
        }
    }
    let outcomes: Vec<String> =
        point.outcomes.iter().map(|(name, n)| format!("{n} {}", name.replace('_', " "))).collect();
    Detail {
        id: format!("{} / {} / {}", point.deployment, point.load, point.level),
        outcomes: outcomes.join(", "),
        numbers,
        distributions,
    }
}

fn deployments(input: &ReportInput<'_>) -> Vec<Vec<String>> {
    let row = |d: &scalebeam_model::plan::DeploymentPlan| {
        let shapes: Vec<String> = d
            .instances
            .iter()
            .map(|i| format!("{} tp{} pp{} dp{}", i.role.name(), i.tp, i.pp, i.dp))
            .collect();
        let mut counted: Vec<(String, u32)> = Vec::new();
        for shape in shapes {
            match counted.iter_mut().find(|(s, _)| *s == shape) {
                Some((_, n)) => *n += 1,
                None => counted.push((shape, 1)),
            }
        }
        let shapes: Vec<String> = counted.into_iter().map(|(s, n)| format!("{n} x {s}")).collect();
        vec![
            d.name.clone(),
            d.engine.name().to_owned(),
            d.version.clone().unwrap_or_else(|| number::ABSENT.to_owned()),
            d.platform.name().to_owned(),
            if d.gpus > 0 { d.gpus.to_string() } else { number::ABSENT.to_owned() },
            d.gpu_kinds.join(", "),
            shapes.join(", "),
        ]
    };
    input.plan.deployments.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ReportSpec;
    use crate::testing;

    fn page() -> (String, scalebeam_model::results::Results) {
        let (results, plan) = testing::run();
        let specs = testing::specs();
        let input = ReportInput {
            results: &results,
            plan: &plan,
            specs: &specs,
            formats: &[],
            profile: None,
        };
        let charts: Vec<Scene> =
            specs.iter().filter_map(|s| chart::of_spec(&results, &plan, s)).collect();
        let text = html(&input, &charts).unwrap();
        if let Some(dir) = std::env::var_os("SCALEBEAM_LOOK") {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(std::path::PathBuf::from(dir).join("report.html"), &text).unwrap();
        }
        (text, results)
    }

    #[test]
    fn nothing_is_fetched() {
        let (text, _) = page();
        for forbidden in ["http://", "https://", "src=", "<script", "@import", "<link"] {
            assert!(!text.contains(forbidden), "the page has {forbidden}");
        }
        for reference in text.split("url(").skip(1) {
            assert!(reference.starts_with('#'), "the page refers to {reference:.40}");
        }
    }

    #[test]
    fn every_points_numbers_and_reasons_are_there() {
        let (text, results) = page();
        for point in &results.points {
            for (name, ..) in COLUMNS {
                let cell = table::cell(&Named::new(name), point);
                // The template engine writes text for HTML.
                assert!(text.contains(&cell.replace('>', "&#62;")), "{}: {name}", point.deployment);
            }
            for reason in &point.trust.reasons {
                assert!(text.contains(&reason.message) && text.contains(&reason.next_step));
            }
        }
        assert!(text.contains("n/a") && text.contains("prefers-color-scheme"));
    }

    #[test]
    fn the_rows_are_the_results() {
        let (text, results) = page();
        for section in table::sections(&results) {
            let (_, rest) = text.split_once(&format!("<h3>{}</h3>", section.title)).unwrap();
            let (table, _) = rest.split_once("</table>").unwrap();
            let rows: Vec<&str> = table.lines().filter(|l| l.contains("scope=\"row\"")).collect();
            assert_eq!(rows.len(), section.points.len());
            for (row, point) in rows.iter().zip(&section.points) {
                let mut wanted = format!("<th scope=\"row\">{}</th>", point.deployment);
                for (name, ..) in COLUMNS {
                    // Said here once more, from the results themselves.
                    let value = match name {
                        "gpus" => Some(f64::from(point.gpus)),
                        "success_rate" => point.value(name).map(|v| v * 100.0),
                        _ => point.value(name),
                    };
                    let cell = match (name, value) {
                        (_, None) => "n/a".to_owned(),
                        ("gpus", Some(v)) => format!("{v:.0}"),
                        ("success_rate", Some(v)) => number::percent(v),
                        (_, Some(v)) => number::plain(v),
                    };
                    wanted.push_str(&format!("<td>{}</td>", cell.replace('>', "&#62;")));
                }
                assert!(row.contains(&wanted), "{row}\nhas not\n{wanted}");
            }
        }
        let details = text.matches("<details><summary><strong>").count();
        assert_eq!(details, results.points.len());
        assert!(
            text.contains("81 of 480 requests not completed (81 timed out); failures: 81 timeout")
        );
    }

    #[test]
    fn what_really_ran_is_there_with_its_flags() {
        let (text, _) = page();
        let (_, ran) = text.split_once("<h2 id=\"ran\">").unwrap();
        for said in [
            "<dt>single-4gpu</dt><dd>engine 0.11.0",
            "<strong>a</strong>: Linux 6.1.0; 4 x NVIDIA H100 80GB HBM3, driver 550.54.15",
            "single-4gpu/0/serve on a",
            "no GPU told: it computes on no GPU",
        ] {
            assert!(ran.contains(said), "{said}: {ran}");
        }
        assert!(!ran.contains("\"kv_role\""), "a command line is text");
    }

    #[test]
    fn a_run_without_points_says_so_and_why() {
        let (mut results, plan) = testing::run();
        results.points.clear();
        results.comparisons.clear();
        results.verdicts.clear();
        results.incomplete = true;
        let specs = testing::specs();
        let input = ReportInput {
            results: &results,
            plan: &plan,
            specs: &specs,
            formats: &[],
            profile: None,
        };
        let page = html(&input, &[]).unwrap();
        for text in
            [page, crate::markdown(&input, &[]), crate::terminal(&results, &plan, 80, false)]
        {
            for said in ["nothing was measured", "was cut short", "did not answer", "ssh_config"] {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
    }

    #[test]
    fn names_cannot_become_markup() {
        let (mut results, plan) = testing::run();
        results.name = "<script>alert(1)</script>".to_owned();
        let spec = ReportSpec { kind: Kind::Panels, ..ReportSpec::default() };
        let scene = chart::of_spec(&results, &plan, &spec).unwrap();
        let input =
            ReportInput { results: &results, plan: &plan, specs: &[], formats: &[], profile: None };
        assert!(!html(&input, &[scene]).unwrap().contains("<script"));
    }
}

//! What a reader wants to see: the `[[report]]` and `[output]` tables, as plain data.

use scalebeam_model::plan::Plan;
use scalebeam_model::results::{PointResult, Results};
use scalebeam_model::spec::{self, FormatKind, ProfileKind, ReportKind};

/// The kind of a `[[report]]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Points in rows, metrics in columns.
    #[default]
    Table,
    /// Deployments against a baseline.
    Compare,
    /// Small multiples, one metric each.
    Panels,
    /// Metrics over a level or another metric, one line a deployment.
    Curve,
    /// Two metrics against each other, with the points that no other beats.
    Pareto,
    /// What the requests of one class suffer from those of others.
    Fairness,
    /// Requests in flight and token throughput over the time of a trial.
    Timeline,
    /// Efficiency over size.
    Scaling,
    /// Where the rest was lost.
    Waterfall,
}

/// A `[[report]]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportSpec {
    /// What is shown.
    pub kind: Kind,
    /// Its title; empty = one is made.
    pub title: String,
    /// Deployment that the others are held against.
    pub baseline: Option<String>,
    /// Metrics, as `ttft.p95`; empty = the usual ones.
    pub metrics: Vec<String>,
    /// Horizontal metric of a curve; absent = the level.
    pub x: Option<String>,
    /// Vertical metrics of a curve; empty = [`ReportSpec::metrics`].
    pub y: Vec<String>,
    /// Targets on the horizontal axis of a front.
    pub at: Vec<f64>,
    /// `load` (a group of bars per load level) or `point` (a bar per point); the class that counts in `fairness`.
    pub by: Option<String>,
    /// Where that class is alone.
    pub alone: Option<String>,
    /// Where it is beside others.
    pub mixed: Option<String>,
    /// Deployments shown; empty = all.
    pub deploy: Vec<String>,
    /// Loads shown; empty = all.
    pub load: Vec<String>,
    /// File name without extension; absent = made from the title.
    pub file: Option<String>,
}

impl ReportSpec {
    /// A `[[report]]` of the file; `None` where its kind cannot be drawn by this version.
    pub fn from_file(report: &spec::ReportSpec) -> Option<Self> {
        let kind = match report.kind {
            ReportKind::Table => Kind::Table,
            ReportKind::Compare => Kind::Compare,
            ReportKind::Panels => Kind::Panels,
            ReportKind::Timeline => Kind::Timeline,
            ReportKind::Scaling => Kind::Scaling,
            ReportKind::Waterfall => Kind::Waterfall,
            ReportKind::Curve => Kind::Curve,
            ReportKind::Pareto => Kind::Pareto,
            ReportKind::Fairness => Kind::Fairness,
        };
        Some(Self {
            kind,
            title: report.title.clone().unwrap_or_default(),
            baseline: report.baseline.clone(),
            metrics: report.metrics.clone(),
            x: report.x.clone(),
            y: report.y.iter().cloned().collect(),
            at: report.at.as_ref().map_or_else(Vec::new, |at| at.0.clone()),
            by: report.by.clone(),
            alone: report.alone.clone(),
            mixed: report.mixed.clone(),
            deploy: report.deploy.clone(),
            load: report.load.clone(),
            file: report.file.clone(),
        })
    }

    /// Whether `point` belongs to this report.
    pub fn shows(&self, point: &PointResult) -> bool {
        let is_in = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        is_in(&self.deploy, &point.deployment) && is_in(&self.load, &point.load)
    }
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `results.json`.
    Json,
    /// `results.csv`: one row a point, all metrics.
    Csv,
    /// Charts as SVG.
    Svg,
    /// Charts as PNG.
    Png,
    /// One self-contained page.
    Html,
    /// A page for a repository or a pull request.
    Markdown,
    /// What the terminal shows.
    Text,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 7] =
        [Self::Json, Self::Csv, Self::Svg, Self::Png, Self::Html, Self::Markdown, Self::Text];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Svg => "svg",
            Self::Png => "png",
            Self::Html => "html",
            Self::Markdown => "md",
            Self::Text => "txt",
        }
    }

    /// A format of the file; `None` where this room does not write it.
    pub const fn from_file(format: FormatKind) -> Option<Self> {
        Some(match format {
            FormatKind::Json => Self::Json,
            FormatKind::Csv => Self::Csv,
            FormatKind::Md => Self::Markdown,
            FormatKind::Svg => Self::Svg,
            FormatKind::Png => Self::Png,
            FormatKind::Html => Self::Html,
        })
    }

    /// Reads the name in the file; `markdown` and `text` are understood too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "markdown" => Some(Self::Markdown),
            "text" => Some(Self::Text),
            _ => Self::ALL.into_iter().find(|f| f.name() == name),
        }
    }
}

/// A seed whose files are written beside ours, so that what read them still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The 22 columns and the 2x3 picture of the single- against dual-node benchmark.
    Seed1,
    /// The summary sheet of the scaling workbook, with its columns per node.
    Seed2,
    /// The artifact folders, the CSV file and the plots of the disaggregated benchmark.
    Seed3,
    /// The GPU-and-users JSON list and the five-panel picture.
    Seed4,
    /// The scaling report of the course.
    Seed5,
}

impl Profile {
    /// A profile of the file.
    pub const fn from_file(profile: ProfileKind) -> Self {
        match profile {
            ProfileKind::Seed1 => Self::Seed1,
            ProfileKind::Seed2 => Self::Seed2,
            ProfileKind::Seed3 => Self::Seed3,
            ProfileKind::Seed4 => Self::Seed4,
            ProfileKind::Seed5 => Self::Seed5,
        }
    }
}

/// Everything that reports are made of.
#[derive(Debug, Clone)]
pub struct ReportInput<'a> {
    /// What analysis says.
    pub results: &'a Results,
    /// What was planned.
    pub plan: &'a Plan,
    /// What is to be shown; empty = the usual tables and charts.
    pub specs: &'a [ReportSpec],
    /// In which forms.
    pub formats: &'a [Format],
    /// Whose files are written as well.
    pub profile: Option<Profile>,
}

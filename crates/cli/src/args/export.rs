//! Flags of `export`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use scalebeam_report::EXPORT_FORMS;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run directory
    pub(crate) run: PathBuf,
    /// Whose files are written
    #[arg(long = "as", value_name = "FORM", value_parser = forms())]
    pub(crate) form: String,
    /// Only this deployment (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) deploy: Vec<String>,
    /// Directory that the files go to [default: export/FORM in the run directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the names of the files as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn forms() -> PossibleValuesParser {
    let form = |form: &scalebeam_report::ExportForm| {
        clap::builder::PossibleValue::new(form.name).help(form.about)
    };
    EXPORT_FORMS.iter().map(form).collect::<Vec<_>>().into()
}

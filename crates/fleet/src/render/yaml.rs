//! YAML as every reader of it understands: also those of version 1.1, for which `no` is false.

use super::RenderError;
use super::subject::Subject;
use serde::Serialize;

/// One document.
pub(super) fn document(
    subject: &Subject<'_>,
    value: &impl Serialize,
) -> Result<String, RenderError> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| {
        subject.cannot(
            format!("its YAML cannot be written: {error}"),
            "this is a defect of scalebeam; please report it with the experiment file",
        )
    })
}

/// Several documents in one file.
pub(super) fn joined(documents: &[String]) -> String {
    documents.join("---\n")
}

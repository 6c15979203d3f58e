//! Any OpenAI-compatible endpoint: nothing to start.

use super::{cannot, text};
use scalebeam_model::engine::{
    CacheReset, Engine, LaunchRequest, ParamKind, ParamSpec, Params, ProcessDraft,
};
use scalebeam_model::plan::{EngineKind, Platform};

#[derive(Debug)]
pub(super) struct Openai;

impl Engine for Openai {
    fn kind(&self) -> EngineKind {
        EngineKind::Openai
    }

    fn owned_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    fn params(&self) -> &'static [ParamSpec] {
        &[ParamSpec {
            name: "cache_reset",
            kind: ParamKind::Text,
            doc: "path that is posted to where a workload says cache = \"reset\"",
        }]
    }

    fn cache_reset(&self, params: &Params) -> Option<CacheReset> {
        text(params, "cache_reset").map(CacheReset::post)
    }

    fn takes_gpus(&self) -> bool {
        false
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        match platform {
            Platform::External => Ok(()),
            other => Err(format!(
                "{}: scalebeam does not know what to start",
                cannot(self.kind(), other)
            )),
        }
    }

    fn processes(&self, _request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        Ok(Vec::new())
    }

    fn has_own_entry(&self) -> bool {
        true
    }
}

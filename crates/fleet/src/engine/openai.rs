//! Any OpenAI-compatible endpoint: nothing to start.

use super::{CACHE_RESET, given_reset, only_on};
use scalebeam_model::engine::{CacheReset, Engine, LaunchRequest, ParamSpec, Params, ProcessDraft};
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
        &[CACHE_RESET]
    }

    fn cache_reset(&self, params: &Params) -> Option<CacheReset> {
        given_reset(params)
    }

    fn takes_gpus(&self) -> bool {
        false
    }

    fn can_run_on(&self, platform: Platform) -> Result<(), String> {
        only_on(&[Platform::External], self.kind(), platform)
            .map_err(|why| format!("{why}: scalebeam does not know what to start"))
    }

    fn processes(&self, _request: &LaunchRequest<'_>) -> Result<Vec<ProcessDraft>, String> {
        Ok(Vec::new())
    }

    fn has_own_entry(&self) -> bool {
        true
    }
}

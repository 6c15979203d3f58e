//! No event of any family makes its reader panic, and what it says is consistent.
//!
//! The first byte chooses the family, the second how the rest is cut into the events of one answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scalebeam_load::api::{Chunk, Memory, Said, document, event};
use scalebeam_model::workload::Api;

fn look(chunk: &Chunk<'_>, texts: &mut Vec<u8>) {
    let with_text = chunk.choices.iter().filter(|c| c.texts().next().is_some()).count();
    assert_eq!(chunk.contents() as usize, with_text);
    for choice in chunk.choices.iter() {
        let _ = choice.finish_reason();
        choice.texts().for_each(|text| text.append_to(texts));
    }
}

fuzz_target!(|input: &[u8]| {
    let [api, cut, data @ ..] = input else { return };
    let api = Api::ALL[usize::from(*api) % Api::ALL.len()];
    let mut texts = Vec::new();
    if let Ok(Said::Chunk(chunk)) = document(api, data) {
        look(&chunk, &mut texts);
    }
    let mut memory = Memory::default();
    let _ = event(api, &mut memory, b"error", data);
    for part in data.split(|byte| byte == cut) {
        if let Ok(Said::Chunk(chunk)) = event(api, &mut memory, b"", part) {
            look(&chunk, &mut texts);
        }
    }
    // What was kept is a row of JSON values, as whoever reads the texts expects.
    let values = serde_json::Deserializer::from_slice(&texts).into_iter::<&serde_json::value::RawValue>();
    assert!(values.into_iter().all(|v| v.is_ok()));
});

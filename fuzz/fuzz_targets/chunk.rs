//! No event makes the chunk parser panic, and what it says is consistent.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scalebeam_load::openai::chunk::{Said, parse, string};

fuzz_target!(|data: &[u8]| {
    let _ = parse(b"error", data);
    let Ok(Said::Chunk(chunk)) = parse(b"", data) else { return };
    let with_text = chunk.choices.iter().filter(|c| c.texts().next().is_some()).count();
    assert_eq!(chunk.contents() as usize, with_text);
    for choice in chunk.choices.iter() {
        let _ = choice.finish_reason();
        for text in choice.texts() {
            let _ = string(text);
        }
    }
});

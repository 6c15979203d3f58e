//! No text makes a reader of prompt files panic, and what comes out of one can be replayed.
//!
//! The first byte says which format.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scalebeam_model::workload::dataset::{ShareGptRules, sharegpt};
use scalebeam_model::workload::{Dataset, FileFormat};

fuzz_target!(|input: &[u8]| {
    let [format, bytes @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let format = FileFormat::ALL[usize::from(*format) % FileFormat::ALL.len()];
    let rules = ShareGptRules { count: &sharegpt::guess_tokens, most: usize::MAX };
    let read = Dataset::parse(format, text, &rules);
    assert_eq!(read, Dataset::parse(format, text, &rules), "the same text is the same data");
    match read {
        Err(why) => assert!(!why.is_empty()),
        Ok(data) => {
            assert!(!data.is_empty() && !data.about().is_empty());
            if let Dataset::Trace(trace) = data {
                let due = trace.due();
                assert!(due[0].0 == 0 && due.is_sorted() && due.len() == trace.entries().len());
                for entry in trace.entries() {
                    assert!(entry.input_tokens > 0 && entry.output_tokens > 0);
                    assert!(entry.hash_ids.len() <= entry.input_tokens.div_ceil(512) as usize);
                }
            }
        }
    }
});

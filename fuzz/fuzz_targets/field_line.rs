//! A line of header fields: name and value lie within it, in that order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::http::parse::{FieldLine, field_line, validate_host};

fuzz_target!(|line: &[u8]| {
    for underscores in [false, true] {
        match field_line(line, underscores) {
            FieldLine::Field { name, value, .. } => {
                assert!(name.end <= value.start && !line[name].contains(&b':'));
                let value = &line[value];
                assert!(!value.contains(&0) && !value.starts_with(b" ") && !value.ends_with(b" "));
                let _ = validate_host(value);
            }
            FieldLine::Invalid(at) => assert!(at <= line.len()),
            FieldLine::End => assert!(line.iter().all(|byte| *byte == b'\r')),
        }
    }
});

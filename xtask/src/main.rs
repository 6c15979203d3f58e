//! Generated files and architecture checks.
fn main() {}

//! Real processes through their whole life: brought up, watched, taken down, and cleaned up after.

// `cfg(test)` marks the helpers as test code for the lint that keeps `unwrap` out of the product.
#[cfg(test)]
mod bench;
#[cfg(test)]
mod down;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod waiting;

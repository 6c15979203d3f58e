//! What models and GPUs are: published shapes and peaks, and constants fitted to measured kernels.
//!
//! Both catalogues are const slices of uniform entries, looked up by forgiving names. An unknown name
//! is never guessed at: the caller gets the nearest known names for its message.

mod gpus;
mod models;
mod names;

pub use gpus::{AllReduce, GpuSpec, gpu, gpu_names};
pub use models::{ModelShape, model, model_names};
pub use names::nearest;

//! Engines that scalebeam installs for the user, in a folder of its own.
//!
//! **Invariant:** nothing is installed without having been announced, with its size, by `plan_text`.

pub mod llama_cpp;

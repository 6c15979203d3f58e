//! The OpenAI dialect: request bodies, and the parts of an answer that are measured.

pub mod body;
pub mod chunk;

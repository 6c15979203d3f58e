//! HTTP to the deployment's entries: where they are, how a connection is opened, written to and
//! read from, and the stamps that are taken where bytes leave and enter the kernel.

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod line;
pub(crate) mod mux;
pub(crate) mod receive;
pub(crate) mod source;
pub mod target;
pub mod tls;
pub(crate) mod wire;

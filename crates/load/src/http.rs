//! HTTP/1.1 to the deployment's entries: where they are, how a connection is opened and kept, and the
//! stamps that are taken where bytes leave and enter the kernel.

pub(crate) mod conn;
pub(crate) mod io;
pub mod target;
pub mod tls;

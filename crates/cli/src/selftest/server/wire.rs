//! The bytes of one connection, as they are or through TLS.
//!
//! The certificate and its key were made for this server and are no secret: it listens on the loopback
//! interface, for as long as a case takes, and nobody trusts it but the load client that is measured.

use super::receive;
use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use scalebeam_model::clock::Clock;
use scalebeam_model::units::Nanos;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

/// Whom a client of the server must trust, as PEM.
pub(crate) const CA: &[u8] = include_bytes!("tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/loopback-only.key");

/// What the server shows to those that connect.
pub(super) fn tls_config() -> io::Result<Arc<ServerConfig>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(CERTIFICATE)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(KEY).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    Ok(Arc::new(config.map_err(io::Error::other)?))
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let begin = |config: &Arc<ServerConfig>| ServerConnection::new(Arc::clone(config));
        let tls = tls.map(begin).transpose().map_err(io::Error::other)?;
        Ok(Self { tcp, tls: tls.map(Box::new) })
    }

    /// Reads once into `scratch`, and puts what it means behind `inbox`: how many bytes were read, and when
    /// the last of them was in the kernel.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        inbox: &mut Vec<u8>,
        clock: &dyn Clock,
    ) -> io::Result<(usize, Nanos)> {
        let (n, at) = receive::receive(&mut self.tcp, scratch, clock)?;
        match &mut self.tls {
            None => inbox.extend_from_slice(&scratch[..n]),
            Some(tls) => {
                decrypt(tls, &scratch[..n], inbox)?;
                // Answers of the handshake; what the socket does not take goes with the next write.
                pass(self.flush())?;
            }
        }
        Ok((n, at))
    }

    /// Writes what the socket takes, and says how much that is. Through TLS, what was taken may still have
    /// to be flushed.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.tcp.write(bytes);
        }
        self.flush()?;
        let Some(tls) = &mut self.tls else { return Ok(0) };
        let n = tls.writer().write(bytes)?;
        pass(self.flush())?;
        Ok(n)
    }

    /// Hands the kernel what is encrypted already.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.tcp)?;
            }
        }
        Ok(())
    }
}

/// A socket that takes no more will say when it does.
pub(super) fn pass(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}

fn decrypt(
    tls: &mut ServerConnection,
    mut encrypted: &[u8],
    inbox: &mut Vec<u8>,
) -> io::Result<()> {
    while !encrypted.is_empty() {
        tls.read_tls(&mut encrypted)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let from = inbox.len();
        inbox.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut inbox[from..])?;
    }
    Ok(())
}

//! TLS for the load's connections: the system's trust, the `ring` provider, and one CA file of the
//! user's own. There is no switch that turns verification off.

use crate::LoadError;
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use scalebeam_model::api::{ALPN_HTTP2, HttpVersion};
use std::path::Path;
use std::sync::Arc;

/// A client configuration that trusts what the system trusts, and the certificates in `ca_file`, and
/// asks for `version` of HTTP and no other.
///
/// # Errors
/// When the file cannot be read or holds no certificate, or the system's trust cannot be used.
pub fn client_config(
    ca_file: Option<&Path>,
    version: HttpVersion,
) -> Result<Arc<ClientConfig>, LoadError> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let refused = |e: rustls::Error| LoadError::Tls(e.to_string());
    let verifier = match ca_file {
        None => Verifier::new(Arc::clone(&provider)),
        Some(file) => Verifier::new_with_extra_roots(read_certificates(file)?, provider.clone()),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(refused)?))
        .with_no_client_auth();
    if version == HttpVersion::Http2 {
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    }
    Ok(Arc::new(config))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bad = |why: String| LoadError::CaFile { file: file.to_owned(), why };
    let found = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
    let all = found.collect::<Result<Vec<_>, _>>().map_err(|e| bad(e.to_string()))?;
    if all.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_ca_file_that_is_none_is_an_error_with_its_name() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "no certificate").unwrap();
        for path in [file.path(), Path::new("/no/such/file.pem")] {
            let text = client_config(Some(path), HttpVersion::Http1).unwrap_err().to_string();
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        }
    }
}

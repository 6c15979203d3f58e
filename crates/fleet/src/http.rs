//! The least HTTP client that readiness needs: one connection per request, bounded bodies.
//!
//! **Invariants.** Proxies of the environment are ignored: a gate asks the endpoint itself. Values of
//! secret headers are marked sensitive and never part of an error.

use crate::error::{FleetError, in_words};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use scalebeam_model::api::{ALPN_HTTP2, HttpVersion};
use scalebeam_model::plan::DeploymentPlan;
use scalebeam_model::telemetry::PagePlan;
use scalebeam_model::workload::Api;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// No answer of a gate is larger; a larger one is not what was asked for.
const BODY_LIMIT: usize = 4 << 20;

/// Asks endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The key by itself and as a bearer token: which of the two is sent follows the family.
    key: Option<(HeaderValue, HeaderValue)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What questions that belong to no family are asked as.
    api: Api,
    /// Trusted beside the system's.
    ca_file: Option<PathBuf>,
    version: HttpVersion,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: u16,
    /// `Content-Type`, empty where there is none.
    pub(crate) content_type: String,
    /// Body, as text.
    pub(crate) body: String,
}

impl Answer {
    /// Whether it is a page for people.
    pub(crate) fn is_html(&self) -> bool {
        self.content_type.contains("text/html") || self.body.trim_start().starts_with("<!")
    }

    /// `HTTP 503 (text/plain): first words`.
    pub(crate) fn summary(&self) -> String {
        let words: String =
            self.body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        let kind = self.content_type.split(';').next().unwrap_or_default();
        match (kind.is_empty(), words.is_empty()) {
            (true, true) => format!("HTTP {}", self.status),
            (true, false) => format!("HTTP {}: {words}", self.status),
            (false, true) => format!("HTTP {} ({kind})", self.status),
            (false, false) => format!("HTTP {} ({kind}): {words}", self.status),
        }
    }
}

/// Why nothing came back, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAnswer(pub(crate) String);

impl Client {
    /// A client that reaches `deployment` as the load will: with its API key and headers, its CA file
    /// (relative to `base`) and its version of HTTP. It is asked in the manner of `api` where a question
    /// has no family of its own.
    pub(crate) fn new(
        deployment: &DeploymentPlan,
        base: &Path,
        api: Api,
    ) -> Result<Self, FleetError> {
        let secrets =
            Self::with_secrets(deployment.api_key_env.as_deref(), &deployment.headers_env, api)?;
        let ca_file = deployment.ca_file.as_ref().map(|file| base.join(file));
        Ok(Self { ca_file, version: deployment.http, ..secrets })
    }

    /// A client for a page of another program.
    pub(crate) fn of_page(page: &PagePlan, base: &Path) -> Result<Self, FleetError> {
        let mut client = Self::with_secrets(None, &page.headers_env, Api::Chat)?;
        if let (Some(user), Some(variable)) = (&page.user, &page.password_env) {
            let password = secret(variable, "the password")?;
            let basic = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
            client.headers.push((http::header::AUTHORIZATION, value(variable, basic)?));
        }
        client.ca_file = page.ca_file.as_ref().map(|file| base.join(file));
        Ok(client)
    }

    fn with_secrets(
        api_key_env: Option<&str>,
        headers_env: &BTreeMap<String, String>,
        api: Api,
    ) -> Result<Self, FleetError> {
        let mut headers = Vec::new();
        let key = api_key_env.map(|variable| {
            let key = secret(variable, "the API key")?;
            let bearer = value(variable, format!("Bearer {key}"))?;
            Ok::<_, FleetError>((value(variable, key)?, bearer))
        });
        let key = key.transpose()?;
        for (name, variable) in headers_env {
            let what = format!("header {name}");
            let header = HeaderName::try_from(name.as_str()).map_err(|_| {
                FleetError::SecretMissing { variable: variable.clone(), what: what.clone() }
            })?;
            headers.push((header, value(variable, secret(variable, &what)?)?));
        }
        Ok(Self { key, headers, api, ca_file: None, version: HttpVersion::Http1 })
    }

    /// The same with one header more.
    pub(crate) fn with_header(&self, name: HeaderName, value: u32) -> Self {
        let mut client = self.clone();
        client.headers.push((name, HeaderValue::from(value)));
        client
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Answer, NoAnswer> {
        self.send(Method::GET, self.api, url, Bytes::new()).await
    }

    pub(crate) async fn post(
        &self,
        api: Api,
        url: &str,
        json: &serde_json::Value,
    ) -> Result<Answer, NoAnswer> {
        self.send(Method::POST, api, url, Bytes::from(json.to_string())).await
    }

    async fn send(
        &self,
        method: Method,
        api: Api,
        url: &str,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let uri: Uri = url.parse().map_err(|e| NoAnswer(format!("bad address: {e}")))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let request = self.request(method, api, &uri, body)?;
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|e| NoAnswer(format!("cannot connect: {e}")))?;
        let _ = stream.set_nodelay(true);
        if secure {
            let stream = self.tls(&host, stream).await?;
            exchange(self.version, stream, request).await
        } else {
            exchange(self.version, stream, request).await
        }
    }

    fn request(
        &self,
        method: Method,
        api: Api,
        uri: &Uri,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, NoAnswer> {
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let authority = uri.authority().map_or("", |a| a.as_str());
        let request = Request::builder().method(method);
        let mut request = match self.version {
            HttpVersion::Http1 => request
                .uri(path)
                .header(http::header::HOST, authority)
                .header(http::header::CONNECTION, "close"),
            // The target is part of the request itself.
            HttpVersion::Http2 => request.uri(uri.clone()).version(http::Version::HTTP_2),
        }
        .header(http::header::USER_AGENT, "scalebeam");
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        if let Some(headers) = request.headers_mut() {
            self.add_headers(api, headers);
        }
        request.body(Full::new(body)).map_err(|e| NoAnswer(format!("bad request: {e}")))
    }
}

impl Client {
    async fn tls(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, NoAnswer> {
        let fail = |e: &dyn std::fmt::Display| NoAnswer(format!("TLS failed: {e}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| fail(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)?))
            .with_no_client_auth();
        if self.version == HttpVersion::Http2 {
            config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        }
        let name =
            rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|e| fail(&e))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.map_err(|e| fail(&e))
    }

    /// What certificates are judged by: the system's trust, and the user's own CA.
    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, NoAnswer> {
        let fail = |e: rustls::Error| NoAnswer(format!("TLS failed: {e}"));
        let Some(file) = &self.ca_file else { return Verifier::new(provider).map_err(fail) };
        let unread = |e: &dyn std::fmt::Display| {
            NoAnswer(format!("cannot read certificates from {}: {e}", file.display()))
        };
        let found = CertificateDer::pem_file_iter(file).map_err(|e| unread(&e))?;
        let roots: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| unread(&e))?;
        Verifier::new_with_extra_roots(roots, provider).map_err(fail)
    }

    /// The key where the family looks for it; the user's headers win.
    fn add_headers(&self, api: Api, headers: &mut HeaderMap) {
        if api == Api::Messages {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        if let Some((key, bearer)) = &self.key {
            match api {
                Api::Messages => headers.insert("x-api-key", key.clone()),
                _ => headers.insert(http::header::AUTHORIZATION, bearer.clone()),
            };
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}

/// Whether `url` has a scheme and a host that can be asked.
pub(crate) fn check_url(url: &str) -> Result<(), FleetError> {
    let bad = |reason: String| FleetError::BadUrl { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|e| bad(format!("{e}")))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(other) => return Err(bad(format!("scheme '{other}' is neither http nor https"))),
        None => return Err(bad("it has no scheme".to_owned())),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("it has no host".to_owned()));
    }
    Ok(())
}

fn secret(variable: &str, what: &str) -> Result<String, FleetError> {
    std::env::var(variable).ok().filter(|v| !v.is_empty()).ok_or_else(|| {
        FleetError::SecretMissing { variable: variable.to_owned(), what: what.to_owned() }
    })
}

fn value(variable: &str, text: String) -> Result<HeaderValue, FleetError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| FleetError::SecretMissing {
        variable: variable.to_owned(),
        what: "a header value (it holds characters that a header cannot)".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn exchange<S>(
    version: HttpVersion,
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Answer, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    // Both connections end with their sender, so no task outlives this exchange by more than a close.
    let response = match version {
        HttpVersion::Http1 => {
            let made = hyper::client::conn::http1::handshake(io).await;
            let (mut sender, connection) = made.map_err(broke)?;
            tokio::spawn(connection);
            sender.send_request(request).await
        }
        HttpVersion::Http2 => {
            let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = made.map_err(broke)?;
            tokio::spawn(connection);
            sender.send_request(request).await
        }
    };
    read(response.map_err(broke)?).await
}

fn broke(e: hyper::Error) -> NoAnswer {
    NoAnswer(format!("connection broke: {}", in_words(&e)))
}

async fn read(response: Response<Incoming>) -> Result<Answer, NoAnswer> {
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broke)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > BODY_LIMIT {
            return Err(NoAnswer(format!("answer is larger than {BODY_LIMIT} bytes")));
        }
    }
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { status, content_type, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_they_are_asked() {
        for (url, want) in [
            ("http://localhost:8000", None),
            ("https://x.modal.run", None),
            ("http://[::1]:8000", None),
            ("localhost:8000", Some("scheme")),
            ("ftp://x", Some("neither http nor https")),
            ("http://", Some("")),
        ] {
            let got = check_url(url).err().map(|e| e.to_string());
            match want {
                None => assert_eq!(got, None, "{url}"),
                Some(part) => assert!(got.unwrap().contains(part), "{url}"),
            }
        }
    }

    #[test]
    fn a_missing_secret_is_named_and_its_value_never_shown() {
        let error =
            Client::with_secrets(Some("SCALEBEAM_NO_SUCH_KEY"), &BTreeMap::new(), Api::Chat)
                .unwrap_err();
        assert!(error.to_string().contains("SCALEBEAM_NO_SUCH_KEY"), "{error}");
        let client = Client::with_secrets(Some("PATH"), &BTreeMap::new(), Api::Chat).unwrap();
        assert!(!format!("{client:?}").contains("/bin"), "{client:?}");
    }

    #[test]
    fn the_key_goes_where_the_family_looks_for_it() {
        let client = Client::with_secrets(Some("PATH"), &BTreeMap::new(), Api::Chat).unwrap();
        let of = |api| {
            let mut headers = HeaderMap::new();
            client.add_headers(api, &mut headers);
            headers
        };
        let path = std::env::var("PATH").unwrap();
        assert_eq!(of(Api::Sglang)["authorization"], format!("Bearer {path}"));
        let messages = of(Api::Messages);
        assert_eq!(messages["x-api-key"], path);
        assert_eq!(messages["anthropic-version"], "2023-06-01");
        assert!(!messages.contains_key("authorization"));
    }
}

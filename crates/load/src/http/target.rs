//! Where requests go.
//!
//! **Invariants:** a secret is never printed (its `Debug` is `***`); everything that can be wrong with
//! a URL, a header or a key is found before the first request is due. Only a name that does not
//! resolve is left to the requests, which then fail one by one, on record.

use crate::LoadError;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use scalebeam_model::api::HttpVersion;
use scalebeam_model::workload::Api;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for a header; never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One entry of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its base, with or without `/v1`: `http://host:8000`, `https://host/prefix/v1`.
    pub base_url: String,
}

/// What all requests of a phase are sent to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The entries; a dispatch names one by its position.
    pub targets: Vec<Target>,
    /// Endpoint family.
    pub api: Api,
    /// The model named in requests.
    pub model: String,
    /// Extra headers; they win over ours.
    pub headers: Vec<(String, String)>,
    /// Sent as `Authorization: Bearer`; by Anthropic's family as `x-api-key`.
    pub api_key: Option<Secret>,
    /// A PEM file of certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The version of HTTP that is spoken.
    pub http: HttpVersion,
    /// Addresses of this machine that connections start from, in turn; none leaves it to the system.
    pub sources: Vec<IpAddr>,
}

impl Endpoint {
    /// One entry, no key, no extra headers.
    pub fn new(base_url: impl Into<String>, api: Api, model: impl Into<String>) -> Self {
        Self {
            targets: vec![Target { base_url: base_url.into() }],
            api,
            model: model.into(),
            headers: Vec::new(),
            api_key: None,
            ca_file: None,
            http: HttpVersion::Http1,
            sources: Vec::new(),
        }
    }

    /// The headers that every request carries, `Host` apart.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, LoadError> {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        map.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        if self.api == Api::Messages {
            map.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
        }
        if let Some(key) = &self.api_key {
            let (name, text) = match self.api {
                Api::Messages => (X_API_KEY, key.reveal().to_owned()),
                _ => (AUTHORIZATION, format!("Bearer {}", key.reveal())),
            };
            let mut value = HeaderValue::try_from(text).map_err(|_| LoadError::ApiKey)?;
            value.set_sensitive(true);
            map.insert(name, value);
        }
        add_headers(&mut map, &self.headers)?;
        Ok(map)
    }
}

pub(crate) fn add_headers(
    map: &mut HeaderMap,
    headers: &[(String, String)],
) -> Result<(), LoadError> {
    for (name, value) in headers {
        let bad = || LoadError::Header { name: name.clone() };
        let key = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        map.insert(key, HeaderValue::try_from(value.as_str()).map_err(|_| bad())?);
    }
    Ok(())
}

/// A target made ready: parsed, resolved, with its `Host` header and path.
#[derive(Debug)]
pub(crate) struct Address {
    /// `host:port`, as failures name it.
    pub(crate) label: String,
    pub(crate) host: String,
    pub(crate) is_tls: bool,
    pub(crate) path: PathAndQuery,
    pub(crate) host_header: HeaderValue,
    /// Resolved once, before the clock starts, so that no request waits for a name server.
    pub(crate) sockets: Result<Vec<SocketAddr>, String>,
}

impl Address {
    /// Makes `base_url` ready for requests to `path`.
    pub(crate) fn resolve(base_url: &str, path: &str) -> Result<Self, LoadError> {
        let bad = |why: &str| LoadError::Url { url: base_url.to_owned(), why: why.to_owned() };
        let uri: Uri = base_url.parse().map_err(|e| bad(&format!("{e}")))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(bad("it does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user or password; use an API key or a header"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/');
        // Both ways of giving a base are common; the path below it begins with /v1 itself.
        let prefix = if path.starts_with("/v1/") {
            prefix.strip_suffix("/v1").unwrap_or(prefix)
        } else {
            prefix
        };
        let full = format!("{prefix}{path}");
        Ok(Self {
            label: format!("{}:{port}", authority.host()),
            is_tls,
            path: PathAndQuery::try_from(full).map_err(|e| bad(&e.to_string()))?,
            host_header: HeaderValue::try_from(authority.as_str())
                .map_err(|e| bad(&e.to_string()))?,
            sockets: look_up(&host, port),
            host,
        })
    }

    /// `headers`, and this target's `Host` where they hold none.
    pub(crate) fn with_host(&self, headers: &HeaderMap) -> HeaderMap {
        let mut all = headers.clone();
        all.entry(HOST).or_insert_with(|| self.host_header.clone());
        all
    }
}

fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match (host, port).to_socket_addrs() {
        Ok(found) => {
            let found: Vec<_> = found.collect();
            if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
        }
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_may_or_may_not_end_in_v1() {
        for (base, path) in [
            ("http://127.0.0.1:8000", "/v1/chat/completions"),
            ("http://127.0.0.1:8000/", "/v1/chat/completions"),
            ("http://127.0.0.1:8000/v1", "/v1/chat/completions"),
            ("http://127.0.0.1:8000/v1/", "/v1/chat/completions"),
            ("http://127.0.0.1:8000/a/v1", "/a/v1/chat/completions"),
        ] {
            let address = Address::resolve(base, Api::Chat.path(true)).unwrap();
            assert_eq!(address.path.as_str(), path, "{base}");
            assert_eq!(address.label, "127.0.0.1:8000");
        }
        let metrics = Address::resolve("http://127.0.0.1:8000", "/metrics").unwrap();
        assert_eq!(metrics.path.as_str(), "/metrics");
    }

    #[test]
    fn ports_and_tls_follow_the_scheme() {
        let https = Address::resolve("https://[::1]/", "/x").unwrap();
        assert_eq!((https.is_tls, https.label.as_str()), (true, "[::1]:443"));
        assert_eq!(https.host, "::1");
        assert_eq!(https.sockets.unwrap(), ["[::1]:443".parse().unwrap()]);
        let http = Address::resolve("http://127.0.0.1", "/x").unwrap();
        assert_eq!((http.is_tls, http.label.as_str()), (false, "127.0.0.1:80"));
    }

    #[test]
    fn a_bad_url_says_what_is_wrong() {
        for (url, why) in [
            ("localhost:8000", "'localhost:8000' is no endpoint"),
            ("ftp://h/", "'ftp://h/' is no endpoint: it does not begin with http:// or https://"),
            ("http://u:p@h/", "it holds a user or password"),
        ] {
            let got = Address::resolve(url, "/").unwrap_err().to_string();
            assert!(got.contains(why), "{got}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let mut endpoint = Endpoint::new("http://h", Api::Chat, "m");
        endpoint.api_key = Some(Secret::new("sk-123"));
        let map = endpoint.header_map().unwrap();
        let printed = format!("{endpoint:?} {map:?}");
        assert!(!printed.contains("sk-123") && printed.contains("***"), "{printed}");
        assert_eq!(map[AUTHORIZATION], "Bearer sk-123");
        endpoint.api_key = Some(Secret::new("sk\n123"));
        assert!(!endpoint.header_map().unwrap_err().to_string().contains("123"));
    }

    #[test]
    fn the_messages_family_has_headers_of_its_own() {
        let mut endpoint = Endpoint::new("http://h", Api::Messages, "m");
        endpoint.api_key = Some(Secret::new("sk-123"));
        let map = endpoint.header_map().unwrap();
        assert_eq!(map["x-api-key"], "sk-123");
        assert_eq!(map["anthropic-version"], "2023-06-01");
        assert!(!map.contains_key(AUTHORIZATION) && !format!("{map:?}").contains("sk-123"));
        endpoint.headers.push(("Anthropic-Version".to_owned(), "2027-01-01".to_owned()));
        assert_eq!(endpoint.header_map().unwrap()["anthropic-version"], "2027-01-01");
    }

    #[test]
    fn a_users_header_wins() {
        let mut endpoint = Endpoint::new("http://h", Api::Chat, "m");
        endpoint.headers.push(("accept".to_owned(), "x/y".to_owned()));
        assert_eq!(endpoint.header_map().unwrap()[ACCEPT], "x/y");
        endpoint.headers.push(("bad name".to_owned(), String::new()));
        assert_eq!(
            endpoint.header_map().unwrap_err().to_string(),
            "'bad name' is no header that can be sent"
        );
    }
}

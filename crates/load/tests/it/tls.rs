//! TLS against a server whose certificate a CA file vouches for. The files under `tls/` were made for
//! this test and are of no use anywhere else.

use crate::support::{Bench, clock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scalebeam_load::probe;
use scalebeam_model::request::{FailureClass, Outcome};
use scalebeam_model::units::Nanos;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/it/tls", name].iter().collect()
}

fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("test-only.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Answers with two tokens, 30 ms apart, over and over.
fn start() -> String {
    let (tell, told) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = acceptor(&[]);
            while let Ok((tcp, _)) = listener.accept().await {
                // Otherwise the session tickets and the first token wait for each other's acknowledgement.
                tcp.set_nodelay(true).unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut buf = [0; 4_096];
                while let Ok(1..) = tls.read(&mut buf).await {
                    let mut out = Vec::new();
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
                    write!(out, "{head}content-length: 90\r\n\r\n").unwrap();
                    out.extend(b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n");
                    tls.write_all(&out).await.unwrap();
                    tls.flush().await.unwrap();
                    let _ = tokio::time::timeout(
                        Duration::from_millis(30),
                        std::future::pending::<()>(),
                    )
                    .await;
                    let rest = b"data: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]\n\n\n\n\n\n\n\n\n\n";
                    tls.write_all(rest).await.unwrap();
                    tls.flush().await.unwrap();
                }
            }
        });
    });
    format!("https://{}", told.recv().unwrap())
}

#[test]
fn a_trusted_server_is_measured_over_tls() {
    let mut bench = Bench::new(&start(), "m").closed(1, 3);
    bench.endpoint.ca_file = Some(file("ca.pem"));
    let (records, _) = bench.run();
    for r in &records {
        assert_eq!(r.outcome, Outcome::Completed, "{:?}", r.failure);
        assert_eq!(r.chunks(), 2);
        assert!(r.first_byte_at >= r.sent_at, "a session ticket is no answer");
        let gap = r.last_token_at.unwrap().since(r.first_token_at.unwrap());
        assert!(gap >= Nanos::from_millis(29), "{gap}");
    }
    assert_eq!(records.iter().filter(|r| r.connect.is_some()).count(), 1, "kept alive");
}

#[test]
fn a_server_that_nobody_vouches_for_is_refused() {
    let url = start();
    let r = Bench::new(&url, "m").one();
    let failure = r.failure.unwrap();
    assert_eq!((r.outcome, failure.class), (Outcome::Failed, FailureClass::Tls));
    assert!(failure.detail.contains("certificate"), "{}", failure.detail);
    let got = probe::get(&clock(), &url, "/", &[], None, Nanos::from_secs(5));
    assert!(got.unwrap_err().to_string().contains("certificate"));
}

/// What a server does with an open session, once it has read a request.
async fn end_with_garbage(mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 90\r\n\r\n";
    tls.write_all(head).await.unwrap();
    tls.write_all(b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n").await.unwrap();
    tls.get_mut().1.send_close_notify();
    tls.flush().await.unwrap();
    tls.get_mut().0.write_all(b"who is there").await.unwrap();
    // The connection stays open: that the session is over is all that the client learns.
    let _ = tls.get_mut().0.read(&mut [0; 16]).await;
}

#[test]
fn what_comes_after_the_end_of_a_session_is_not_waited_for() {
    let (tell, told) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor(&[]).accept(tcp).await else { continue };
                let _ = tls.read(&mut [0; 4_096]).await;
                end_with_garbage(tls).await;
            }
        });
    });
    let mut bench = Bench::new(&format!("https://{}", told.recv().unwrap()), "m").closed(1, 3);
    bench.endpoint.ca_file = Some(file("ca.pem"));
    let (records, _) = bench.run();
    for r in &records {
        assert_eq!(r.outcome, Outcome::Truncated, "{:?}", r.failure);
        assert_eq!(r.chunks(), 1);
    }
}

/// Answers over HTTP/2 with two tokens, 30 ms apart; `protocols` are what it offers.
fn start_http2(protocols: &'static [&'static [u8]]) -> String {
    let (tell, told) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = acceptor(protocols);
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                let Ok(mut connection) = h2::server::handshake(tls).await else { continue };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head =
                        http::Response::builder().header("content-type", "text/event-stream");
                    let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    let token: &[u8] = b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
                    out.send_data(token.into(), false).unwrap();
                    let wait = std::future::poll_fn(|cx| connection.poll_closed(cx));
                    let _ = tokio::time::timeout(Duration::from_millis(30), wait).await;
                    out.send_data([token, b"data: [DONE]\n\n"].concat().into(), true).unwrap();
                }
            }
        });
    });
    format!("https://{}", told.recv().unwrap())
}

#[test]
fn http2_is_agreed_on_or_not_spoken() {
    let bench = |url: &str| {
        let mut bench = Bench::new(url, "m").closed(1, 3);
        bench.endpoint.ca_file = Some(file("ca.pem"));
        bench.endpoint.http = scalebeam_model::api::HttpVersion::Http2;
        bench.run().0
    };
    let records = bench(&start_http2(&[b"http/1.1", b"h2"]));
    assert_eq!(records.len(), 3);
    for r in &records {
        assert_eq!((r.outcome, r.chunks()), (Outcome::Completed, 2), "{:?}", r.failure);
        let gap = r.last_token_at.unwrap() - r.first_token_at.unwrap();
        assert!(gap >= Nanos::from_millis(25), "{gap}");
        assert!(r.sent_at.unwrap() < r.first_byte_at.unwrap());
    }
    for r in bench(&start()) {
        let failure = r.failure.unwrap();
        assert_eq!(failure.class, FailureClass::Tls);
        assert!(failure.detail.contains("does not offer HTTP/2"), "{failure:?}");
    }
}

//! What a completion goes through.

use crate::bench::{
    BLOCKS, CHAT, Client, Worker, ask, at_once, counted, prefilled, router, router_of, said,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

const ASKED: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}"#;

#[tokio::test]
async fn a_prefill_worker_computes_and_a_decode_worker_answers() {
    let prefill = Worker::plain(prefilled).await;
    let decode = Worker::plain(|| at_once(200, "data: [DONE]\n\n")).await;
    let router = router(&[&prefill], &[&decode]);
    let answer =
        ask(router, "POST", "/v1/completions?a=b", r#"{"prompt":"hi","max_tokens":9}"#).await;
    assert_eq!(answer, (200, "data: [DONE]\n\n".to_owned()));

    let (first, second) = (prefill.asked().remove(0), decode.asked().remove(0));
    for asked in [&first, &second] {
        assert_eq!(asked.target, "/v1/completions?a=b");
        assert_eq!(asked.headers["authorization"], "Bearer k");
        assert_eq!(asked.headers["x-request-id"], "id-1");
    }
    assert_eq!(first.headers["host"], prefill.url.trim_start_matches("http://"));
    assert_eq!((&first.body["max_tokens"], &first.body["stream"]), (&json!(1), &json!(false)));
    assert_eq!(first.body["kv_transfer_params"]["do_remote_decode"], json!(true));
    let blocks: Value = serde_json::from_str(BLOCKS).unwrap();
    assert_eq!(
        second.body,
        json!({ "prompt": "hi", "max_tokens": 9, "kv_transfer_params": blocks })
    );
}

/// Each piece reaches the client before the next is written, and as it was written.
#[tokio::test]
async fn a_stream_is_passed_on_piece_by_piece() {
    let prefill = Worker::plain(prefilled).await;
    let (feed, decode) = Worker::fed().await;
    let router = router(&[&prefill], &[&decode]);
    let mut client = Client::new(router).await;
    let answer = client.send("POST", CHAT, ASKED).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    for piece in ["data: a\n\n", "data: b", "\r\n\r\n", "data: é\n\n"] {
        feed.send(Some(Bytes::from(piece))).unwrap();
        let read = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(read, piece.as_bytes());
    }
    drop(feed);
    assert!(body.frame().await.is_none());
    counted(router, "scalebeam_router_requests_total{outcome=\"completed\"} 1").await;
    counted(router, "scalebeam_router_relayed_bytes_total 30").await;
}

#[tokio::test]
async fn a_refusal_of_either_worker_reaches_the_client_as_it_is() {
    let prefill = Worker::plain(|| at_once(400, r#"{"error":"too long"}"#)).await;
    let decode = Worker::plain(|| at_once(429, r#"{"error":"later"}"#)).await;
    let at_first = router(&[&prefill], &[&decode]);
    assert_eq!(
        ask(at_first, "POST", CHAT, ASKED).await,
        (400, r#"{"error":"too long"}"#.to_owned())
    );
    assert!(decode.asked().is_empty());
    let prefill = Worker::plain(prefilled).await;
    let at_second = router(&[&prefill], &[&decode]);
    assert_eq!(ask(at_second, "POST", CHAT, ASKED).await, (429, r#"{"error":"later"}"#.to_owned()));
    for router in [at_first, at_second] {
        counted(router, "scalebeam_router_requests_total{outcome=\"refused\"} 1").await;
    }
}

/// It would be answered, and be measured as what it is not.
#[tokio::test]
async fn a_prefill_that_keeps_no_blocks_is_an_error() {
    let prefill = Worker::plain(|| at_once(200, r#"{"kv_transfer_params":null}"#)).await;
    let decode = Worker::plain(|| at_once(200, "")).await;
    let (status, body) = ask(router(&[&prefill], &[&decode]), "POST", CHAT, ASKED).await;
    assert_eq!(status, 502);
    assert!(body.contains(&prefill.url) && body.contains("without kv_transfer_params"), "{body}");
    assert!(decode.asked().is_empty());
}

#[tokio::test]
async fn a_worker_that_is_not_there_is_named() {
    let prefill = Worker::plain(prefilled).await;
    let nobody = "http://127.0.0.1:9".to_owned();
    let router = router_of(vec![prefill.url.clone()], vec![nobody]);
    let (status, body) = ask(router, "POST", CHAT, ASKED).await;
    assert_eq!(status, 502);
    assert!(body.contains("no answer of worker http://127.0.0.1:9: "), "{body}");
    counted(router, "scalebeam_router_requests_total{outcome=\"unreachable\"} 1").await;
}

#[tokio::test]
async fn what_cannot_be_split_is_refused_before_a_worker_is_asked() {
    let prefill = Worker::plain(prefilled).await;
    let router = router(&[&prefill], &[&prefill]);
    for (path, body, want) in [
        ("/v1/completions", r#"{"prompt":["a","b"]}"#, "a list of 2"),
        (CHAT, r#"{"n":2}"#, "n has to be 1"),
        (CHAT, "{", "cannot read the body"),
    ] {
        let (status, said) = ask(router, "POST", path, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(said.contains(want), "{said}");
    }
    let (status, said) = ask(router, "POST", "/v1/embeddings", "{}").await;
    assert_eq!(status, 404);
    assert!(said.contains("nothing answers POST /v1/embeddings"), "{said}");
    assert!(prefill.asked().is_empty());
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_ended_as_if_it_were_whole() {
    let prefill = Worker::plain(prefilled).await;
    let (feed, decode) = Worker::fed().await;
    let router = router(&[&prefill], &[&decode]);
    feed.send(Some(Bytes::from("data: a\n\n"))).unwrap();
    let mut body = Client::new(router).await.send("POST", CHAT, ASKED).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: a\n\n");
    feed.send(None).unwrap();
    assert!(body.collect().await.is_err());
    counted(router, "scalebeam_router_requests_total{outcome=\"cut\"} 1").await;
    let failed = "scalebeam_router_worker_failed_total{role=\"decode\",worker=";
    counted(router, &format!("{failed}\"{}\"}} 1", decode.url)).await;
}

/// A worker that takes one request, writes `answer` and closes.
async fn cut_short(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        // What is closed before all was read would take the answer along.
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}") {
            let length = socket.read(&mut piece).await.unwrap();
            request.extend_from_slice(&piece[..length]);
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
    });
    url
}

#[tokio::test]
async fn a_prefill_that_breaks_off_is_a_failure_of_its_worker() {
    let prefill = cut_short("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choices\":").await;
    let decode = Worker::plain(|| at_once(200, "")).await;
    let router = router_of(vec![prefill.clone()], vec![decode.url.clone()]);
    let (status, body) = ask(router, "POST", CHAT, ASKED).await;
    assert_eq!(status, 502);
    assert!(body.contains(&prefill) && body.contains("broke off"), "{body}");
    assert!(decode.asked().is_empty());
    counted(router, "scalebeam_router_requests_total{outcome=\"cut\"} 1").await;
    counted(router, "scalebeam_router_requests_total{outcome=\"refused\"} 0").await;
    let failed = "scalebeam_router_worker_failed_total{role=\"prefill\",worker=";
    counted(router, &format!("{failed}\"{prefill}\"}} 1")).await;
}

/// By the end of its connection an engine knows that nobody waits for the rest.
#[tokio::test]
async fn a_client_that_goes_away_takes_its_stream_along() {
    let prefill = Worker::plain(prefilled).await;
    let (feed, decode) = Worker::fed().await;
    let router = router(&[&prefill], &[&decode]);
    let answer = Client::new(router).await.send("POST", CHAT, ASKED).await;
    feed.send(Some(Bytes::from("data: a\n\n"))).unwrap();
    drop(answer);
    // hyper reads a worker's connection only while it has something to write, or waits for the next request.
    let gone = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
        while feed.send(Some(Bytes::from("data: b\n\n"))).is_ok() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    counted(router, "scalebeam_router_requests_total{outcome=\"cancelled\"} 1").await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_prefill_along() {
    let (working, gone) = oneshot::channel::<()>();
    let working = Arc::new(Mutex::new(Some(working)));
    let (began, begun) = oneshot::channel::<()>();
    let began = Arc::new(Mutex::new(Some(began)));
    let prefill = Worker::new(move |_| {
        let working = working.lock().unwrap().take();
        began.lock().unwrap().take().unwrap().send(()).unwrap();
        Box::pin(async move {
            let _working = working;
            std::future::pending().await
        })
    })
    .await;
    let router = router(&[&prefill], &[&prefill]);
    let asking =
        tokio::spawn(async move { Client::new(router).await.send("POST", CHAT, ASKED).await });
    begun.await.unwrap();
    asking.abort();
    let gone = tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    assert!(gone.is_err(), "its future was dropped");
    counted(router, "scalebeam_router_requests_total{outcome=\"cancelled\"} 1").await;
}

#[tokio::test]
async fn a_client_of_http_2_is_served_too() {
    let prefill = Worker::plain(prefilled).await;
    let decode = Worker::plain(|| at_once(200, "data: [DONE]\n\n")).await;
    let router = router(&[&prefill], &[&decode]);
    let socket = tokio::net::TcpStream::connect(router).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(socket);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::post(format!("http://{router}{CHAT}"))
        .body(http_body_util::Full::new(Bytes::from(ASKED)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(said(answer).await, (200, "data: [DONE]\n\n".to_owned()));
    assert_eq!(prefill.asked()[0].target, CHAT);
}

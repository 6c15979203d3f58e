//! Who is asked, over which connection, and what is said of all.

use crate::bench::{
    CHAT, Client, Worker, ask, at_once, counted, prefilled, router, router_of, said,
};
use serde_json::{Value, json};

const ASKED: &str = r#"{"messages":[]}"#;

fn answered() -> hyper::Response<crate::bench::Fed> {
    at_once(200, "{}")
}

#[tokio::test]
async fn workers_of_a_pool_take_turns() {
    let (p1, p2) = (Worker::plain(prefilled).await, Worker::plain(prefilled).await);
    let mut decode = Vec::new();
    for _ in 0..3 {
        decode.push(Worker::plain(answered).await);
    }
    let router = router(&[&p1, &p2], &decode.iter().collect::<Vec<_>>());
    let mut client = Client::new(router).await;
    for _ in 0..6 {
        assert_eq!(said(client.send("POST", CHAT, ASKED).await).await.0, 200);
    }
    let counts: Vec<usize> =
        [&p1, &p2].into_iter().chain(&decode).map(|w| w.asked().len()).collect();
    assert_eq!(counts, [3, 3, 2, 2, 2]);
}

#[tokio::test]
async fn a_connection_to_a_worker_is_kept() {
    let (prefill, decode) = (Worker::plain(prefilled).await, Worker::plain(answered).await);
    let router = router(&[&prefill], &[&decode]);
    for _ in 0..5 {
        assert_eq!(ask(router, "POST", CHAT, ASKED).await.0, 200);
    }
    for (role, worker) in [("prefill", &prefill), ("decode", &decode)] {
        let labels = format!("{{role=\"{role}\",worker=\"{}\"}}", worker.url);
        counted(router, &format!("scalebeam_router_worker_sent_total{labels} 5")).await;
        counted(router, &format!("scalebeam_router_worker_connections_total{labels} 1")).await;
    }
}

/// A worker that closes after each answer is asked over a new connection, and nothing is lost.
#[tokio::test]
async fn a_connection_that_the_worker_closed_is_not_used() {
    let closing = || {
        let mut response = prefilled();
        response.headers_mut().insert("connection", "close".parse().unwrap());
        response
    };
    let worker = Worker::plain(closing).await;
    let router = router(&[&worker], &[&worker]);
    for _ in 0..3 {
        let answer = Client::new(router).await.send("POST", CHAT, ASKED).await;
        assert!(
            !answer.headers().contains_key("connection"),
            "what is between neighbours stays there"
        );
        assert_eq!(said(answer).await.0, 200);
    }
    assert_eq!(worker.asked().len(), 6);
}

#[tokio::test]
async fn health_waits_for_every_worker_and_lists_those_that_answer() {
    let worker = Worker::plain(answered).await;
    let nobody = "http://127.0.0.1:9".to_owned();
    let router = router_of(vec![worker.url.clone(), nobody], vec![worker.url.clone()]);
    let (status, body) = ask(router, "GET", "/health", "").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &page["status"]), (503, &json!("waiting")));
    assert!(
        page["missing"][0].as_str().unwrap().starts_with("prefill http://127.0.0.1:9: "),
        "{page}"
    );
    let parts: Vec<&Value> =
        page["instances"].as_array().unwrap().iter().map(|i| &i["component"]).collect();
    assert_eq!(parts, ["prefill", "decode"]);

    let router = router_of(vec![worker.url.clone()], vec![worker.url.clone()]);
    assert_eq!(ask(router, "GET", "/health", "").await.0, 200);
}

#[tokio::test]
async fn models_are_those_of_the_decode_workers_and_a_reset_reaches_all() {
    let prefill = Worker::plain(|| at_once(404, "no")).await;
    let decode = Worker::plain(|| at_once(200, r#"{"data":[{"id":"m"}]}"#)).await;
    let one = router(&[&prefill], &[&decode]);
    assert_eq!(
        ask(one, "GET", "/v1/models", "").await,
        (200, r#"{"data":[{"id":"m"}]}"#.to_owned())
    );
    let (status, body) = ask(one, "POST", "/reset_prefix_cache", "").await;
    assert_eq!(status, 502);
    assert!(
        body.contains(&format!("prefill worker {}", prefill.url)) && body.contains("404"),
        "{body}"
    );

    let two = router(&[&decode], &[&decode]);
    assert_eq!(ask(two, "POST", "/reset_prefix_cache?x=1", "").await.0, 200);
    let asked = decode.asked();
    assert_eq!(asked.iter().filter(|a| a.target == "/reset_prefix_cache?x=1").count(), 2);
}

#[test]
fn pools_and_urls_are_checked_at_once() {
    let bind = |prefill: &[&str], decode: &[&str]| {
        let urls = |urls: &[&str]| urls.iter().map(|u| (*u).to_owned()).collect();
        let config = scalebeam_router::RouterConfig {
            bind: "127.0.0.1:0".parse().unwrap(),
            prefill: urls(prefill),
            decode: urls(decode),
        };
        let clock = std::sync::Arc::new(scalebeam_model::clock::ManualClock::default());
        scalebeam_router::Router::bind(&config, clock).unwrap_err().to_string()
    };
    assert_eq!(bind(&[], &["http://h:1"]), "no prefill worker is given");
    assert_eq!(bind(&["http://h:1"], &[]), "no decode worker is given");
    assert!(bind(&["http://h:1"], &["h:1"]).contains("'h:1' is not of the form http://HOST:PORT"));
}

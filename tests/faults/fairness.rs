//! Floods: whoever sends little is served though others send much.

use std::time::{Duration, Instant};

use crate::load::{
    Outcome, answered, bodies, body, client, closed_loop, percentile, print, send, text,
};
use crate::server::Server;

/// Requests one after the other while a flood runs.
async fn beside(
    base: &str,
    key: Option<&str>,
    documents: usize,
    flood: tokio::task::JoinHandle<Vec<Outcome>>,
) -> (Vec<Outcome>, Vec<Outcome>) {
    let (client, bodies) = (client(), bodies(documents));
    // Until the flood has filled the queue.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut outcomes = Vec::new();
    while !flood.is_finished() {
        let body = bodies[fastrand::usize(..bodies.len())].clone();
        outcomes.push(send(&client, base, key, body, documents).await);
    }
    // The last one may have had the server to itself.
    outcomes.pop();
    (outcomes, flood.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn five_documents_beside_connections_that_send_one_document_each() {
    let server = Server::start(&["--dtype", "int8"]);
    for connections in [64, 128] {
        let base = server.base.clone();
        let time = Duration::from_secs(20);
        let start = Instant::now();
        let flood =
            tokio::spawn(async move { closed_loop(&base, None, connections, 1, time).await });
        let (five, flood) = beside(&server.base, None, 5, flood).await;
        let rate = answered(&flood) as f64 / start.elapsed().as_secs_f64();
        // Each of the connections gets a pair for each of the five.
        let share = Duration::from_secs_f64(5.0 * (connections + 1) as f64 / rate);
        print(&format!("{connections} connections"), &flood);
        print("  five documents beside them", &five);
        let p99 = percentile(&five, 0.99);
        println!(
            "  an equal share takes {share:?}: {:.2} of it",
            p99.as_secs_f64() / share.as_secs_f64()
        );
        assert!(five.iter().all(|o| o.status == 200));
        assert!(p99 < 2 * share, "{p99:?} of {share:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn a_key_beside_another_key_with_300_connections() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "flood flood-key\nother other-key\n").unwrap();
    let config = tempfile::NamedTempFile::new().unwrap();
    let path = keys.path().display();
    std::fs::write(config.path(), format!("[auth]\nkeys_file = \"{path}\"\n")).unwrap();
    let config = config.path().to_str().unwrap();
    let server = Server::start(&["--dtype", "int8", "--config", config]);
    let base = server.base.clone();
    let time = Duration::from_secs(20);
    let flood = async move { closed_loop(&base, Some("flood-key"), 300, 1, time).await };
    let start = Instant::now();
    let (five, flood) = beside(&server.base, Some("other-key"), 5, tokio::spawn(flood)).await;
    let rate = answered(&flood) as f64 / start.elapsed().as_secs_f64();
    print("300 connections of one key", &flood);
    print("  another key, five documents", &five);
    // Half of the engine is its own.
    let share = Duration::from_secs_f64(2.0 * 5.0 / rate);
    println!("  an equal share takes {share:?}");
    assert!(five.iter().all(|o| o.status == 200));
    // A batch that runs is not interrupted, and the next one holds others' pairs too.
    let two_batches = Duration::from_millis(200);
    assert!(percentile(&five, 0.99) < 2 * share + two_batches);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn small_requests_beside_one_of_a_thousand_long_documents() {
    let server = Server::start(&["--dtype", "int8"]);
    let large = body(&(0..1000).map(|_| text(900)).collect::<Vec<_>>());
    println!("a body of {:.1} MB", large.len() as f64 / 1e6);
    let base = server.base.clone();
    let large = tokio::spawn(async move { send(&client(), &base, None, large, 1000).await });
    let small = closed_loop(&server.base, None, 4, 5, Duration::from_secs(15)).await;
    print("small ones", &small);
    let large = large.await.unwrap();
    println!("the large one: {large:?}");
    let refused = small.iter().filter(|o| o.status != 200).count();
    assert!(refused * 50 < small.len(), "{refused} of {}", small.len());
    assert!(percentile(&small, 0.99) < Duration::from_secs(3));
}

//! Ten times as much as the server can do: what it does must still become answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::{Outcome, answered, bodies, client, closed_loop, percentile, print, send};
use crate::server::Server;

const SIZES: [usize; 4] = [1, 5, 32, 200];
const MEASURED: Duration = Duration::from_secs(30);

/// Sends requests of all sizes at a rate of documents a second, whatever becomes of them.
async fn open_loop(base: &str, sizes: &[usize], rate: f64, time: Duration) -> Vec<Outcome> {
    let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    let pause = Duration::from_secs_f64(mean / rate);
    let bodies: Vec<_> = sizes.iter().map(|&size| (size, bodies(size))).collect();
    let client = Arc::new(client());
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut sent = 0u32;
    while start.elapsed() < time {
        tokio::time::sleep_until((start + pause * sent).into()).await;
        sent += 1;
        let (size, bodies) = &bodies[fastrand::usize(..bodies.len())];
        let (size, body) = (*size, bodies[fastrand::usize(..bodies.len())].clone());
        let (client, base) = (Arc::clone(&client), base.to_owned());
        tasks.spawn(async move { send(&client, &base, None, body, size).await });
    }
    tasks.join_all().await
}

async fn goodput(dtype: &str, sizes: &[usize]) {
    let server = Server::start(&["--dtype", dtype]);
    // What keeps the engine busy without filling the queue. A request costs something besides its pairs.
    let (clients, documents) = if sizes == [1] { (16, 1) } else { (4, 32) };
    let busy = |seconds| {
        let time = Duration::from_secs(seconds);
        closed_loop(&server.base, None, clients, documents, time)
    };
    busy(3).await;
    let (start, cpu) = (Instant::now(), server.cpu());
    let outcomes = busy(12).await;
    assert!(outcomes.iter().all(|o| o.status == 200));
    let capacity = answered(&outcomes) as f64 / start.elapsed().as_secs_f64();
    let of_cpu = answered(&outcomes) as f64 / (server.cpu() - cpu);
    let scored = server.metric("rerankd_pairs_scored_total").await;
    let (start, cpu) = (Instant::now(), server.cpu());
    let outcomes = open_loop(&server.base, sizes, 10.0 * capacity, MEASURED).await;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = server.cpu() - cpu;
    let scored = server.metric("rerankd_pairs_scored_total").await - scored;
    let good = answered(&outcomes) as f64;
    println!(
        "{dtype}, requests of {sizes:?}: capacity {capacity:.1} pairs/s; at ten times that {:.1} pairs/s \
         answered, {:.2} of it; {:.2} of it by the server's CPU time; {:.2} of what was scored",
        good / seconds,
        good / seconds / capacity,
        good / cpu / of_cpu,
        good / scored
    );
    print("  overload", &outcomes);
    let retry: Vec<u64> = outcomes.iter().filter_map(|o| o.retry_after).collect();
    println!(
        "  retry-after from {:?} to {:?} s",
        retry.iter().min(),
        retry.iter().max()
    );
    let lone = send(&client(), &server.base, None, bodies(1)[0].clone(), 1).await;
    println!("  a lone request after it: {:?}", lone.took);
    assert!(outcomes.iter().all(|o| [200, 503].contains(&o.status)));
    assert!(
        good / scored >= 0.9,
        "work was spent on what was not answered"
    );
    // The load takes CPU time from the server that it bears. Of 3,000 refusals a second each costs a
    // request's time in the server, though no engine's.
    let least = if sizes == [1] { 0.85 } else { 0.9 };
    assert!(good / cpu / of_cpu >= least);
    let ok: Vec<Outcome> = outcomes
        .iter()
        .copied()
        .filter(|o| o.status == 200)
        .collect();
    assert!(percentile(&ok, 0.99) < Duration::from_secs(20));
    assert!(lone.status == 200 && lone.took < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn ten_times_the_capacity_in_f32() {
    goodput("f32", &SIZES).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn ten_times_the_capacity_in_int8() {
    goodput("int8", &SIZES).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn ten_times_the_capacity_in_requests_of_200_documents() {
    goodput("f32", &[200]).await;
    goodput("int8", &[200]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn ten_times_the_capacity_in_requests_of_one_document() {
    goodput("int8", &[1]).await;
}

//! Bodies as large as they may be, many at a time: memory stays bounded, and is given back.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::load::{body, client, closed_loop, percentile, print, send, text};
use crate::server::Server;

/// What documents are made of, from the cheapest for a tokenizer to the dearest.
fn documents() -> [(&'static str, String); 4] {
    let size = 15_900_000;
    [
        ("words", {
            let words = text(1000);
            (words + " ").chars().cycle().take(size).collect()
        }),
        ("dots", ".".repeat(size)),
        ("one letter", "a".repeat(size)),
        ("ideographs", "\u{6c34}".repeat(size / 3)),
    ]
}

async fn small_beside(server: &Server, clients: usize, name: &str, document: &str) -> Duration {
    let large = body(&[document.to_owned()]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (base, large) = (server.base.clone(), large.clone());
        tasks.spawn(async move { send(&client(), &base, None, large, 1).await });
    }
    let start = Instant::now();
    let small = closed_loop(&server.base, None, 1, 1, Duration::from_secs(1)).await;
    let large = tasks.join_all().await;
    println!(
        "{clients} clients with 16 MB of {name}, all done in {:?}:",
        start.elapsed()
    );
    print("  large", &large);
    print("  small beside them", &small);
    println!(
        "  memory {:.0} MB, peak {:.0} MB",
        server.memory("VmRSS"),
        server.memory("VmHWM")
    );
    assert!(large.iter().all(|o| [200, 503].contains(&o.status)));
    percentile(&small, 0.99)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn documents_of_16_mb_one_and_eight_at_a_time() {
    for (name, document) in documents() {
        let server = Server::start(&[]);
        for clients in [1, 8] {
            let wait = small_beside(&server, clients, name, &document).await;
            assert!(
                wait < Duration::from_secs(2),
                "a small request waited {wait:?}"
            );
        }
        assert!(server.memory("VmHWM") < 1500.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn a_hundred_bodies_of_16_mb_at_a_time() {
    for (name, document) in documents() {
        let server = Server::start(&[]);
        small_beside(&server, 100, name, &document).await;
        assert!(server.memory("VmHWM") < 2500.0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!("  two seconds later {:.0} MB", server.memory("VmRSS"));
        assert!(server.memory("VmRSS") < 500.0, "memory is not given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn two_hundred_half_sent_bodies() {
    let server = Server::start(&[]);
    let before = server.memory("VmRSS");
    let half = vec![b' '; 7_500_000];
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let streams = tokio::task::spawn_blocking(move || {
        let mut streams = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            let head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 15000000\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            // Those that there is no room for are not read.
            let _ = stream.write_all(&half);
            streams.push(stream);
        }
        streams
    });
    let streams = streams.await.unwrap();
    let small = closed_loop(&server.base, None, 1, 1, Duration::from_secs(1)).await;
    print("small beside them", &small);
    println!(
        "200 half-sent bodies: {before:.0} MB before, {:.0} MB",
        server.memory("VmHWM")
    );
    assert!(small.iter().all(|o| o.status == 200));
    assert!(server.memory("VmHWM") < before + 400.0);
    drop(streams);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("  two seconds later {:.0} MB", server.memory("VmRSS"));
}

/// A group of processes (cgroup) with a limit on their memory, removed at the end.
struct Group(PathBuf);

impl Group {
    /// `None` where this process may not make one.
    fn new(megabytes: u64) -> Option<Self> {
        let name = format!("rerankd-{}", std::process::id());
        let trees = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        trees.into_iter().find_map(|(tree, file)| {
            let group = Path::new(tree).join(&name);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            let limit = (megabytes << 20).to_string();
            fs::write(group.0.join(file), limit).ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can be removed as soon as its last process is gone.
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; see the head of main.rs"]
async fn a_hundred_bodies_of_16_mb_in_a_group_with_little_memory() {
    for megabytes in [320, 256] {
        let Some(group) = Group::new(megabytes) else {
            println!("not run: it needs the right to make a cgroup with a limit on memory");
            return;
        };
        for (name, document) in documents() {
            // Had it taken more, the system would have killed it, and the requests would have no answer.
            let server = Server::start_in(&group.0, &[]);
            small_beside(&server, 100, name, &document).await;
            assert!(server.memory("VmHWM") < 1.05 * (megabytes as f64));
        }
    }
}

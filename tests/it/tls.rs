//! TLS: the certificate, its renewal, clients' certificates, and those who don't finish a handshake.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use prost::Message;

use crate::support::app::metric;
use crate::support::grpc::{Grpc, framed};
use crate::support::process::{Server, run};
use crate::support::tls::{Authority, Files, ask, connect, der, free_port, get, get_plain, text};
use crate::support::until;

/// Years in which the tests' certificates are valid.
const YEARS: (i32, i32) = (2020, 4000);

const GET: &str = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

fn rerank() -> String {
    let body = json!({"query": "rivers", "documents": ["sea", "land"]}).to_string();
    format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn requests_are_answered_over_tls_with_http_2_for_those_who_offer_it() {
    let authority = Authority::new();
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let server = files.serve(&[]);
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let tls = connect(&server, &authority.client(None, offered)).unwrap();
        assert_eq!(tls.conn.alpn_protocol(), chosen.map(str::as_bytes));
    }
    let client = authority.client(None, &[]);
    let mut kept = connect(&server, &client).unwrap();
    for _ in 0..2 {
        let (status, body) = ask(&mut kept, &rerank()).unwrap();
        assert_eq!(status, 200, "{body}");
    }
    let (_, metrics) = ask(&mut kept, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(metric(&metrics, "rerankd_tls_files_ok"), 1.0);
    // The first of January 4000.
    let expiry = metric(&metrics, "rerankd_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry, 64_060_588_800.0);
    let stranger = Authority::new().client(None, &[]);
    assert!(connect(&server, &stranger).is_err(), "it is the real one");
}

#[test]
fn the_log_names_the_address_with_its_scheme() {
    let files = Files::new(&Authority::new().pair(YEARS.0, YEARS.1));
    let mut command = crate::support::process::rerankd();
    command
        .args(["serve", "--port", "0", "--log-format", "json"])
        .env("RERANKD__TLS__CERT_FILE", files.path("tls.crt"))
        .env("RERANKD__TLS__KEY_FILE", files.path("tls.key"))
        .env("RERANKD__MODEL__PRELOAD", "false")
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let listening = lines.find(|line| line["message"] == "listening").unwrap();
    let url = listening["url"].as_str().unwrap();
    assert!(url.starts_with("https://127.0.0.1:"), "{listening}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_answered_over_tls() {
    let authority = Authority::new();
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let server = tokio::task::block_in_place(|| files.serve(&[]));
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let connector = TlsConnector::from(authority.client(None, &["h2"]));
    let name = "localhost".try_into().unwrap();
    let grpc = Grpc::over(connector.connect(name, stream).await.unwrap()).await;
    let request = framed(&HealthCheckRequest::default());
    let ended = grpc.send("grpc.health.v1.Health/Check", &[], request).await;
    assert_eq!(ended.status, 0, "{ended:?}");
    let answer = HealthCheckResponse::decode(&ended.messages[0][..]).unwrap();
    assert_eq!(answer.status, 1, "serving");
}

#[test]
fn whoever_has_no_certificate_of_the_authority_is_refused_but_at_the_health_port() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let ca = files.write("ca.crt", &clients.certificate);
    let port = free_port();
    let server = files.serve(&[
        ("tls.client_ca_file", text(&ca)),
        ("server.health_port", &port.to_string()),
    ]);
    let shown = clients.pair(YEARS.0, YEARS.1);
    let admitted = authority.client(Some(&shown), &[]);
    assert_eq!(get(&server, &admitted, "/health").unwrap().0, 200);
    let foreign = Authority::new().pair(YEARS.0, YEARS.1);
    let expired = clients.pair(2001, 2002);
    for refused in [None, Some(&foreign), Some(&expired)] {
        let client = authority.client(refused, &[]);
        let answer = get(&server, &client, "/health");
        assert!(answer.is_err(), "{answer:?}");
    }
    let (status, metrics) = get_plain(port, "/metrics");
    assert_eq!(status, 200);
    assert_eq!(
        metric(
            &metrics,
            "rerankd_tls_handshakes_failed_total{reason=\"failed\"}"
        ),
        3.0
    );
    // A session with the old authority is not taken up again once there is another.
    let others = Authority::new();
    std::fs::write(&ca, &others.certificate).unwrap();
    server.log("TLS files read again");
    assert!(get(&server, &admitted, "/health").is_err());
    let shown = others.pair(YEARS.0, YEARS.1);
    let admitted = authority.client(Some(&shown), &[]);
    assert_eq!(get(&server, &admitted, "/health").unwrap().0, 200);
}

#[test]
fn a_renewed_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let authority = Authority::new();
    let (old, new) = (
        authority.pair(YEARS.0, YEARS.1),
        authority.pair(YEARS.0, YEARS.1),
    );
    // As Kubernetes mounts a secret: links to a link to a folder, of which one rename is a new version.
    let files = Files(tempfile::tempdir().unwrap());
    let version = |name: &str, certificate: &str, key: &str| {
        let folder = files.path(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        let link = files.path("..data_tmp");
        std::os::unix::fs::symlink(name, &link).unwrap();
        std::fs::rename(link, files.path("..data")).unwrap();
    };
    version("v1", &old.certificate, &old.key);
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), files.path(name)).unwrap();
    }
    let server = files.serve(&[]);
    let client = authority.client(None, &[]);
    let shown = || {
        let tls = connect(&server, &client).unwrap();
        tls.conn.peer_certificates().unwrap()[0].clone()
    };
    let mut kept = connect(&server, &client).unwrap();
    assert_eq!(shown(), der(&old.certificate));
    version("v2", &new.certificate, &new.key);
    server.log("TLS files read again");
    assert_eq!(shown(), der(&new.certificate));
    assert_eq!(ask(&mut kept, GET).unwrap().0, 200);

    version("v3", &new.certificate, &old.key);
    let told = server
        .log("the TLS certificate stays as it was")
        .to_string();
    assert!(told.contains("is not the key of the certificate"), "{told}");
    assert_eq!(shown(), der(&new.certificate));
    let (status, health) = ask(&mut kept, GET).unwrap();
    assert_eq!(status, 200);
    let health: Value = serde_json::from_str(&health).unwrap();
    assert!(
        health["detail"].as_str().unwrap().contains("TLS"),
        "{health}"
    );
    let (_, metrics) = get(&server, &client, "/metrics").unwrap();
    assert_eq!(metric(&metrics, "rerankd_tls_files_ok"), 0.0);

    std::fs::remove_file(files.path("tls.crt")).unwrap();
    let told = server
        .log("the TLS certificate stays as it was")
        .to_string();
    assert!(told.contains("there is no such file"), "{told}");
    server.signal("HUP");
    server.log("the TLS certificate stays as it was");
    files.write("tls.crt", &old.certificate);
    server.log("TLS files read again");
    assert_eq!(shown(), der(&old.certificate));
    assert!(!ask(&mut kept, GET).unwrap().1.contains("detail"));
}

#[test]
fn plain_http_is_told_to_use_https() {
    let files = Files::new(&Authority::new().pair(YEARS.0, YEARS.1));
    let server = files.serve(&[]);
    let (status, answer) = server.get("/health");
    assert_eq!(status, 400);
    assert!(answer.contains("https://"), "{answer}");
    // Also with a body that is on its way when the answer is.
    let mut stream = server.connect();
    let body = vec![b'x'; 200_000];
    let head = format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_handshake_that_is_not_finished_delays_nobody_and_ends() {
    let authority = Authority::new();
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let server = files.serve(&[("server.head_timeout_ms", "1500")]);
    let start = Instant::now();
    let mut stuck: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for (i, stream) in stuck.iter_mut().enumerate() {
        // Nothing, or the begin of a record that says it is longer.
        let begin: &[u8] = &[22, 3, 1, 2, 0, 1, 0][..i % 8];
        stream.write_all(begin).unwrap();
    }
    let client = authority.client(None, &[]);
    assert_eq!(get(&server, &client, "/health").unwrap().0, 200);
    let served = start.elapsed();
    assert!(served < Duration::from_millis(1400), "{served:?}");
    for mut stream in stuck {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let closed = start.elapsed();
    assert!(closed > Duration::from_millis(1400), "{closed:?}");
    let (_, metrics) = get(&server, &client, "/metrics").unwrap();
    let late = metric(
        &metrics,
        "rerankd_tls_handshakes_failed_total{reason=\"late\"}",
    );
    assert!(late >= 30.0, "{late}");
}

#[test]
fn stuck_handshakes_make_room_for_others() {
    let authority = Authority::new();
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let server = files.serve(&[("server.max_connections", "4")]);
    let stuck: Vec<_> = (0..60).map(|_| server.connect()).collect();
    let client = authority.client(None, &[]);
    until("a request is answered", || {
        let answered = connect(&server, &client).and_then(|mut tls| ask(&mut tls, &rerank()));
        answered.is_ok_and(|(status, _)| status == 200)
    });
    drop(stuck);
}

#[test]
fn a_server_with_tls_stops_as_any_other() {
    let authority = Authority::new();
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let mut server = files.serve(&[("shutdown.pause_ms", "500")]);
    let client = authority.client(None, &[]);
    let mut kept = connect(&server, &client).unwrap();
    assert_eq!(ask(&mut kept, GET).unwrap().0, 200);
    let _stuck = server.connect();
    server.signal("TERM");
    server.log("shutting down");
    assert_eq!(ask(&mut kept, GET).unwrap().0, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_health_command_knows_the_scheme_and_the_port() {
    let authority = Authority::new();
    let files = Files::new(&authority.pair(YEARS.0, YEARS.1));
    let ca = files.write("ca.crt", &authority.certificate);
    let server = files.serve(&[]);
    let port = server.address().rsplit(':').next().unwrap().to_owned();
    let config = files.write(
        "own.toml",
        &format!(
            "[server]\nport = {port}\n[tls]\ncert_file = {:?}\nkey_file = {:?}\n",
            files.path("tls.crt"),
            files.path("tls.key")
        ),
    );
    let own = run(&["health", "--config", text(&config)]);
    assert!(own.status.success(), "{own:?}");
    let url = format!("https://127.0.0.1:{port}");
    let health = |certificates: &str| {
        let mut command = crate::support::process::rerankd();
        command.args(["health", "--url", &url]);
        command.env("SSL_CERT_FILE", certificates).output().unwrap()
    };
    let trusted = health(text(&ca));
    assert!(trusted.status.success(), "{trusted:?}");
    let other = files.write("other.crt", &Authority::new().certificate);
    assert_eq!(health(text(&other)).status.code(), Some(1));
}

/// A certificate of X.509 version 1.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBJDCBywIUC0FBl68XMF1TKhfrK4ZR5bt74J4wCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzE2NTcyNloYDzIxMjYxMTAzMTY1NzI2
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAT5LgtL7IAsQhR9beW5w83HXC9nneZOcErVaMBS9PqNsmquwcdlAFzJQJS2nPoE
43Q8AKB8sWnweCBHZo9YxU8GMAoGCCqGSM49BAMCA0gAMEUCIQC06V0jMyKmae8O
NCNBieRow9DpwMMW+jWrSGVKmQpi/QIgav+wglQKgVsoXOeut1QjokN8WCqdhGGa
HJJUkw/JB/M=
-----END CERTIFICATE-----
";

/// What `--check-config` says with these settings of TLS.
fn checked(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = crate::support::process::rerankd();
    command.args(["serve", "--check-config"]);
    for (key, value) in settings {
        let name = format!("RERANKD__{}", key.replace('.', "__").to_uppercase());
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn check_config_reads_the_files() {
    let authority = Authority::new();
    let pair = authority.pair(YEARS.0, YEARS.1);
    let files = Files::new(&pair);
    let expired = authority.pair(2001, 2002);
    let early = authority.pair(3000, 4000);
    let other = authority.pair(YEARS.0, YEARS.1);
    files.write("expired.crt", &expired.certificate);
    files.write("expired.key", &expired.key);
    files.write("early.crt", &early.certificate);
    files.write("early.key", &early.key);
    files.write("other.key", &other.key);
    files.write("nothing", "nothing\n");
    files.write("v1.crt", VERSION_1);
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    for (name, bytes) in [
        ("der.crt", der(&pair.certificate).as_ref()),
        ("der.key", key.secret_der()),
    ] {
        std::fs::write(files.path(name), bytes).unwrap();
    }
    for (certificate, key, ca, code, says) in [
        (
            "tls.crt",
            "tls.key",
            "",
            0,
            &["localhost, 127.0.0.1, until 4000-01-01"][..],
        ),
        (
            "expired.crt",
            "expired.key",
            "",
            0,
            &["expired.crt", "has expired", "2002-01-01"],
        ),
        (
            "early.crt",
            "early.key",
            "",
            0,
            &["early.crt", "not valid before 3000-01-01"],
        ),
        (
            "tls.crt",
            "tls.key",
            "expired.crt",
            0,
            &["tls.client_ca_file", "has expired"],
        ),
        (
            "tls.crt",
            "other.key",
            "",
            2,
            &["other.key: it is not the key of", "tls.crt"],
        ),
        (
            "tls.crt",
            "nothing",
            "",
            2,
            &["holds no private key in PEM"],
        ),
        (
            "der.crt",
            "tls.key",
            "",
            2,
            &["tls.cert_file", "in DER", "openssl x509 -inform der"],
        ),
        (
            "tls.crt",
            "der.key",
            "",
            2,
            &["tls.key_file", "in DER", "openssl pkey -inform der"],
        ),
        (
            "v1.crt",
            "tls.key",
            "",
            2,
            &["tls.cert_file", "X.509 version 1"],
        ),
        (
            "nothing",
            "tls.key",
            "",
            2,
            &["holds no certificate in PEM"],
        ),
        (
            "tls.crt",
            "tls.key",
            "nothing",
            2,
            &["tls.client_ca_file", "holds no certificate"],
        ),
        (
            "missing",
            "tls.key",
            "",
            2,
            &["tls.cert_file", "there is no such file"],
        ),
        (
            "tls.crt",
            "",
            "",
            2,
            &["tls.cert_file is set, but tls.key_file is not"],
        ),
        (
            "",
            "",
            "tls.crt",
            2,
            &["tls.client_ca_file is set, but tls.cert_file is not"],
        ),
    ] {
        let path = |name: &str| match name {
            "" => String::new(),
            name => text(&files.path(name)).to_owned(),
        };
        let (found, told) = checked(&[
            ("tls.cert_file", &path(certificate)),
            ("tls.key_file", &path(key)),
            ("tls.client_ca_file", &path(ca)),
        ]);
        assert_eq!(found, Some(code), "{certificate} {key} {ca}: {told}");
        for word in says {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert_eq!(
            told.contains("warning: "),
            code == 0 && certificate != ca && says.len() > 1
        );
        assert!(!told.contains("PRIVATE KEY-----\n"), "{told}");
    }
    let (code, told) = checked(&[("server.port", "9000"), ("server.health_port", "9000")]);
    assert_eq!(code, Some(2));
    assert!(told.contains("server.health_port is 9000"), "{told}");
}

#[test]
fn without_tls_nothing_is_said_of_it() {
    let server = Server::start(&[]);
    assert!(!server.get("/metrics").1.contains("rerankd_tls_files_ok "));
}

//! A body in content codings: the first byte chooses which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rerankd_fuzz::choice;
use rerankd_fuzz::service::Service;

const CODINGS: [&str; 8] = [
    "gzip",
    "deflate",
    "br",
    "zstd",
    "br, gzip",
    "gzip, zstd",
    "zstd, deflate, br",
    "identity, x-gzip",
];

fuzz_target!(init: { Service::get(); }, |input: &[u8]| {
    let Some((codings, body)) = choice(input, CODINGS.len()) else {
        return;
    };
    let codings = [("content-encoding", CODINGS[codings])];
    Service::get().post("/rerank", &codings, body);
});

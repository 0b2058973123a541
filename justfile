# List the recipes.
default:
    @just --list

# What CI runs.
ci:
    bash .ci/run

# Every test.
test:
    cargo test --release --locked

# Fairness, huge bodies, little memory and overload: minutes.
faults:
    cargo test --locked --release --test faults -- --ignored --test-threads 1 --nocapture
    python3 benches/overload.py -- --dtype f32
    python3 benches/overload.py -- --dtype int8
    python3 benches/overload.py --sizes 200
    python3 benches/overload.py --sizes 1

# The real clients, and openapi.yaml, against the server.
compat:
    python3 tests/compat/run.py

# The server on its built-in model.
demo:
    cargo run --release

# The server against its own engine.
bench model="models/minilm":
    cargo run --release -- bench --model {{model}}

# docs/reference and the answers of the docs' examples anew from the program, and all checks of the docs.
docs:
    cargo build --release --locked
    python3 scripts/reference.py
    python3 scripts/examples.py --write
    python3 scripts/check_docs.py

# openapi.yaml anew from the code.
openapi:
    cargo run --release -- openapi > openapi.yaml

# Archive, wheel, Debian package, list of libraries and checksums, made and tried (15 minutes at first).
packages:
    python3 scripts/package.py all

# Whether the code for NVIDIA GPUs compiles; needs neither a GPU nor CUDA's toolkit.
check-cuda:
    python3 scripts/check_cuda.py

# Licences, sources and duplicates of the dependencies, and dependencies that nothing uses
# (cargo install cargo-deny cargo-machete); CI runs the first.
deps:
    cargo deny --locked check bans licenses sources
    cargo machete

# The tiny models and their golden logits anew, from the reference implementation.
golden:
    python3 -m venv target/golden
    target/golden/bin/pip install -q -r tests/golden/requirements.txt
    target/golden/bin/python tests/golden/generate.py
    target/golden/bin/python tests/golden/variants.py

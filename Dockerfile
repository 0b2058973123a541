# Build arguments:
#   DEVICE=cuda      an image for NVIDIA GPUs in place of one for CPUs
#   FEATURES=...     Cargo features, commas between them; with none ("") the built-in model is left out
#   MODEL=org/name   a model from the hub within the image (not with DEVICE=cuda), at REVISION=...; a token for it is
#                    given as a secret: --secret id=hf_token,src=FILE
#   VERSION, COMMIT  what the labels tell
ARG DEVICE=cpu
ARG RUST_VERSION=1.95
ARG CUDA_VERSION=13.0.1

FROM rust:${RUST_VERSION}-bookworm AS compile-cpu

FROM nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04 AS compile-cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
COPY --from=compile-cpu /usr/local/cargo /usr/local/cargo
COPY --from=compile-cpu /usr/local/rustup /usr/local/rustup
# The oldest GPUs that it runs on, by their compute capability without its point.
ARG CUDA_COMPUTE_CAP=80
ENV CARGO_HOME=/usr/local/cargo \
    RUSTUP_HOME=/usr/local/rustup \
    PATH=/usr/local/cargo/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP} \
    DEVICE_FEATURES=cuda

# hadolint ignore=DL3006
FROM compile-${DEVICE} AS build
WORKDIR /src
ARG FEATURES=builtin-model,columnar
# The libraries alone, with empty crates in place of rerankd's own: a layer that stays as it is until a manifest, the
# lock file or the features change.
COPY Cargo.toml Cargo.lock ./
COPY crates/engine/Cargo.toml crates/engine/
COPY crates/kernels/Cargo.toml crates/kernels/
COPY benches/*.rs benches/
RUN mkdir -p src crates/engine/src crates/kernels/src \
    && touch src/lib.rs crates/engine/src/lib.rs crates/kernels/src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --profile dist --locked --no-default-features --features "$FEATURES $DEVICE_FEATURES"
COPY . .
# Cargo goes by the files' times, and these may be older than the empty crates.
RUN touch src/lib.rs src/main.rs crates/*/src/lib.rs \
    && cargo build --profile dist --locked --no-default-features --features "$FEATURES $DEVICE_FEATURES"

FROM debian:bookworm-slim AS run-cpu

FROM nvidia/cuda:${CUDA_VERSION}-runtime-ubuntu24.04 AS run-cuda
ENV RERANKD__ENGINE__DEVICE=cuda

# hadolint ignore=DL3006
FROM run-${DEVICE}
ARG DEVICE
ARG MODEL=""
ARG REVISION=main
COPY LICENSE models/builtin/NOTICE /usr/share/doc/rerankd/
COPY --from=build /src/target/dist/rerankd /usr/local/bin/rerankd
# In group 0, whose rights any user has that OpenShift makes up.
RUN useradd --system --uid 10001 --gid 0 --no-create-home --shell /usr/sbin/nologin rerankd \
    && install --directory --owner 10001 --group 0 --mode 775 /cache
USER 10001:0
# The pause lets a load balancer see /health/ready before connections are refused. Blocks above the
# threshold are given back to the system when they are freed (glibc would raise it by itself).
ENV HF_HUB_CACHE=/cache \
    MALLOC_MMAP_THRESHOLD_=1048576 \
    RERANKD__SERVER__HOST=0.0.0.0 \
    RERANKD__SERVER__PORT=8080 \
    RERANKD__SHUTDOWN__PAUSE_MS=5000 \
    RERANKD__MODEL__ID=${MODEL:-builtin} \
    RERANKD__MODEL__REVISION=${REVISION}
# Fetches the model into the cache and scores a pair with it, so that a bad one fails the build. The token is there for
# this step only, in no layer. A build has no GPU to score on.
RUN --mount=type=secret,id=hf_token,uid=10001 \
    if [ -n "$MODEL" ] && [ "$DEVICE" != cpu ]; then \
        echo "MODEL needs DEVICE=cpu; with DEVICE=$DEVICE name the model when the image is run" >&2; exit 1; \
    elif [ -n "$MODEL" ]; then \
        HF_TOKEN_PATH=/run/secrets/hf_token rerankd rerank --query "a query" --file /etc/debian_version \
        && chmod -R g=u /cache; \
    fi
# A baked model is served at its commit, whatever the hub says by then. To serve another one from such
# an image, run it with HF_HUB_OFFLINE=0.
ENV HF_HUB_OFFLINE=${MODEL:+1}
EXPOSE 8080
# A model of some gigabytes may take long to arrive; the first answer ends the start period.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 CMD ["rerankd", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["rerankd"]
CMD ["serve"]
ARG VERSION=""
ARG COMMIT=""
LABEL org.opencontainers.image.title="rerankd" \
      org.opencontainers.image.description="An HTTP reranking service with a model inside" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"

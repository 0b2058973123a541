ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked

FROM debian:bookworm-slim
# To bake a model into the image: docker build --build-arg MODEL=org/name [--build-arg REVISION=...] .
ARG MODEL=""
ARG REVISION=main
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
# Fetches the model into the cache and scores a pair with it, so that a bad one fails the build.
RUN if [ -n "$MODEL" ]; then \
        rerankd rerank --query "a query" --file /etc/debian_version && chmod -R g=u /cache; \
    fi
# A baked model is served at its commit, whatever the hub says by then. To serve another one from such
# an image, run it with HF_HUB_OFFLINE=0.
ENV HF_HUB_OFFLINE=${MODEL:+1}
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["rerankd", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["rerankd"]
CMD ["serve"]

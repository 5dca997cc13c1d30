# The image: one static binary, nothing else. No shell, no package manager, not root.
#
#   docker build -t attache .
#
# BUILDER is any image with this Rust, a C compiler and the usual authorities' certificates. BASE is what the binary is put
# on; it needs nothing, so that it is nothing. In both, the machine's own mirror can be named.
ARG BUILDER=rust:1.95-bookworm
ARG BASE=scratch

FROM ${BUILDER} AS build
WORKDIR /source
COPY . .
# glibc linked in: name resolution by files and DNS is part of it, so the image needs no libc. The linker
# puts together what is used, which halves memory.
ENV RUSTFLAGS="-C target-feature=+crt-static -C linker=benches/cc -C strip=symbols"
# The kernel's random numbers, as everywhere else: AWS-LC would first spend 30 ms of every start on timing its own CPU.
ENV AWS_LC_SYS_NO_JITTER_ENTROPY=1
# Nothing unwinds through C: 0.1 MB.
ENV CFLAGS="-fno-asynchronous-unwind-tables -fno-unwind-tables"
RUN target="$(uname -m)-unknown-linux-gnu" \
    && cargo build --release --locked --bin attache --target "$target" \
    && cp "target/$target/release/attache" /attache

FROM ${BASE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /attache /attache
# A release adds source, revision and version.
LABEL org.opencontainers.image.title="attache" \
      org.opencontainers.image.description="A sidecar that carries the credentials, so that the service beside it does not have to" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 7080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/attache", "probe"]
ENTRYPOINT ["/attache"]
CMD ["run"]

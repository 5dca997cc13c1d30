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
RUN target="$(uname -m)-unknown-linux-gnu" \
    && benches/release "$target" \
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

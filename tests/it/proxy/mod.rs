//! The way of a request, through the real application.

mod answers;
mod callers_own;
mod counted;
mod gone;
mod grpc;
mod hostile_callers;
mod hostile_upstreams;
mod http2_by_hand;
mod http2_callers;
mod http2_limits;
mod http2_malformed;
mod http2_streams;
mod http2_upstreams;
mod http_proxy;
mod large_answers;
mod proxied;
mod refused;
mod road;
mod streams;
mod tokens;
mod unix;
mod upstream_limits;
mod upstream_tls;
mod websocket;
mod websocket_http2;

//! Fakes, once. Each listens on a port of its own, records what it saw, and lets a test wait for it.

mod caller;
pub mod either;
mod fake_rotation;
mod fake_server;
mod http2;
mod http2_server;
mod sidecar;
mod tls_server;
mod tls_upstream;
pub mod websocket;

pub use self::{
    caller::{Answer, Caller, get, post},
    fake_rotation::{Mood, Rotation},
    fake_server::{FakeServer, PATIENCE, Received, Reply},
    http2::{Http2Caller, OPENING, block, frame, http2_request},
    http2_server::{Asked, Http2Server, reset_of, reset_of_stream},
    sidecar::{Sidecar, credential},
    tls_server::{Authority, Seen, TlsServer},
    tls_upstream::{Files, TlsUpstream, config as server_config, mark},
};

/// Waits until something is so.
pub fn until(holds: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// What a fake provider answers: a token with this number.
pub fn token(number: usize, lifetime: u64) -> Reply {
    Reply::json(
        200,
        &format!(
            "{{\"access_token\":\"token-{number}\",\"token_type\":\"Bearer\",\"expires_in\":{lifetime}}}"
        ),
    )
}

/// A provider that issues tokens of an hour, numbered from 1.
pub fn provider() -> FakeServer {
    FakeServer::start(|request| token(request.number, 3600))
}

/// An upstream that answers with the head of the request that it received.
pub fn echo() -> FakeServer {
    FakeServer::start(|request| match request.line().starts_with("HEAD ") {
        true => Reply::raw("HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\n"),
        false => Reply::text(200, &request.head),
    })
}

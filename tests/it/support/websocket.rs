//! WebSocket handshakes over either HTTP, and what goes through the tunnel.

use std::net::{Shutdown, SocketAddr};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, ext::Protocol, server::Builder};
use http::{HeaderMap, Method, Request, Response, Version};

use super::{Asked, Caller, FakeServer, Http2Caller, Http2Server, Received, Reply};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What answers a key (RFC 6455 §4.2.2).
pub fn answer_to(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Which HTTP a side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// Every pair of a caller's and an upstream's.
pub const PAIRS: [(Http, Http); 4] =
    [(Http::One, Http::One), (Http::One, Http::Two), (Http::Two, Http::One), (Http::Two, Http::Two)];

impl Http {
    /// What a route to such an upstream says.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::One => "protocol = \"http1\"",
            Self::Two => "protocol = \"h2c\"",
        }
    }
}

/// A caller's side of a tunnel.
pub enum Chat {
    One(Caller),
    Two { caller: Http2Caller, recv: RecvStream, send: SendStream<Bytes>, held: Vec<u8> },
}

/// The answer to a handshake.
pub struct Handshake {
    pub status: u16,
    pub headers: HeaderMap,
    pub reason: Option<String>,
    pub chat: Option<Chat>,
}

/// A request for a tunnel of this protocol.
pub fn connect_request(uri: &str, protocol: &'static str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .version(Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

impl Chat {
    /// Asks for a tunnel to `path` with further fields.
    pub fn ask(http: Http, address: SocketAddr, path: &str, fields: &[(&'static str, &str)]) -> Handshake {
        match http {
            Http::One => Self::ask_http_1(address, path, fields),
            Http::Two => {
                let mut request = connect_request(&format!("http://localhost{path}"), "websocket");
                for (name, value) in fields {
                    request.headers_mut().append(*name, value.parse().unwrap());
                }
                Self::ask_http_2(Http2Caller::connect(address), request)
            }
        }
    }

    fn ask_http_1(address: SocketAddr, path: &str, fields: &[(&'static str, &str)]) -> Handshake {
        let mut caller = Caller::connect(address);
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        caller.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
        ));
        let answer = caller.answer();
        let mut headers = HeaderMap::new();
        for (name, value) in answer.head.lines().filter_map(|line| line.split_once(": ")) {
            headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        if answer.status == 101 {
            assert_eq!(answer.field("sec-websocket-accept"), Some(&*answer_to(KEY)));
            assert_eq!(
                (answer.field("upgrade"), answer.field("connection")),
                (Some("websocket"), Some("upgrade"))
            );
        }
        let reason = answer.reason();
        let chat = (answer.status == 101).then_some(Self::One(caller));
        Handshake { status: answer.status, headers, reason, chat }
    }

    pub fn ask_http_2(mut caller: Http2Caller, request: Request<()>) -> Handshake {
        caller.wait_for_extended_connect();
        let exchange = caller.open(request, false);
        let (response, send) = caller.head(exchange);
        let (head, mut recv) = response.into_parts();
        let status = head.status.as_u16();
        for name in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
            assert!(status != 200 || !head.headers.contains_key(name), "{name}");
        }
        if status == 200 {
            let chat = Self::Two { caller, recv, send, held: Vec::new() };
            return Handshake { status, headers: head.headers, reason: None, chat: Some(chat) };
        }
        let mut body = Vec::new();
        caller.runtime.block_on(async {
            while let Some(data) = recv.data().await {
                body.extend_from_slice(&data.unwrap());
            }
        });
        let text = String::from_utf8(body).unwrap();
        let reason = text.split_once("\"reason\":\"").and_then(|(_, rest)| rest.split('"').next());
        Handshake { status, headers: head.headers, reason: reason.map(str::to_owned), chat: None }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::One(caller) => caller.send(bytes),
            Self::Two { send, .. } => {
                let _ = send.send_data(Bytes::copy_from_slice(bytes), false);
            }
        }
    }

    /// So many bytes, or as many as come before the end.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        match self {
            Self::One(caller) => caller.bytes(count),
            Self::Two { caller, recv, held, .. } => {
                while held.len() < count {
                    let Some(Ok(data)) = caller.block_on(recv.data()) else { break };
                    recv.flow_control().release_capacity(data.len()).unwrap();
                    held.extend_from_slice(&data);
                }
                held.drain(..count.min(held.len())).collect()
            }
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        match self {
            Self::One(caller) => caller.finish(),
            Self::Two { send, .. } => send.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// Whether the upstream's direction ends, with nothing more to come, as it should.
    pub fn has_ended(&mut self) -> bool {
        match self {
            Self::One(caller) => caller.is_closed(),
            Self::Two { caller, recv, .. } => loop {
                match caller.block_on(recv.data()) {
                    None => return true,
                    // The end can be a frame of its own.
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(_) => return false,
                }
            },
        }
    }

    /// How the tunnel breaks off for the caller.
    pub fn breaks_off(&mut self) -> String {
        match self {
            Self::One(caller) => caller.error(),
            Self::Two { caller, recv, .. } => match caller.block_on(recv.data()) {
                Some(Err(error)) => format!("{:?}", error.reason().unwrap()),
                other => format!("{other:?}"),
            },
        }
    }

    /// Breaks it off.
    pub fn break_off(self) {
        match self {
            Self::One(caller) => caller.reset(),
            // The connection ends with the caller, and what was sent on it is out by then.
            Self::Two { caller, mut send, recv, .. } => {
                send.send_reset(Reason::CANCEL);
                drop((send, recv));
                caller.leave();
            }
        }
    }
}

/// An upstream that grants tunnels: it says hello, sends back what it receives to its end, and says bye.
pub enum ChatServer {
    One(FakeServer),
    Two(Http2Server),
}

impl ChatServer {
    pub fn start(http: Http) -> Self {
        match http {
            Http::One => Self::One(FakeServer::start(|request| {
                Reply::raw(format!("{}hello", switch(request))).then(|reader, writer| {
                    use std::io::Write as _;
                    std::io::copy(reader, writer).unwrap();
                    writer.write_all(b"bye").unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                })
            })),
            Http::Two => Self::Two(Http2Server::with(extended(), None, |asked| async move {
                let (mut recv, mut send) = grant(asked);
                send.send_data(Bytes::from_static(b"hello"), false).unwrap();
                while let Some(Ok(data)) = recv.data().await {
                    recv.flow_control().release_capacity(data.len()).unwrap();
                    let _ = send.send_data(data, false);
                }
                let _ = send.send_data(Bytes::from_static(b"bye"), true);
            })),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Two(server) => server.url(),
        }
    }
}

/// Settings of a server that takes CONNECT for tunnels.
pub fn extended() -> Builder {
    let mut settings = Builder::new();
    settings.enable_connect_protocol();
    settings
}

/// A 101 that answers the request's key.
pub fn switch(request: &Received) -> String {
    let accept = answer_to(request.fields("sec-websocket-key")[0]);
    format!(
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\
         X-Echo: Bearer token-1\r\nX-Fine: 1\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Grants a tunnel over HTTP/2.
pub fn grant(mut asked: Asked) -> (RecvStream, SendStream<Bytes>) {
    assert_eq!(asked.head.method, Method::CONNECT);
    assert_eq!(asked.head.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
    for name in ["sec-websocket-key", "upgrade", "connection", "content-length"] {
        assert_eq!(asked.field(name), None, "{name}");
    }
    let response =
        Response::builder().header("x-echo", "Bearer token-1").header("x-fine", "1").body(()).unwrap();
    let send = asked.respond.send_response(response, false).unwrap();
    (asked.body, send)
}

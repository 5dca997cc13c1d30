//! What callers send.

use std::{net::SocketAddr, rc::Rc};

use crate::{
    engine::{self, Plan},
    site::{self, GRPC, SIZES},
};

/// What a caller sends; `up` bodies are uploads of 64 KiB. Of so many `routes` so many are asked for instead of the first
/// segment.
pub fn plan(first: &str, size: &str, to: SocketAddr, routes: Option<(usize, usize)>) -> Rc<Plan> {
    let expected = SIZES.iter().find(|(name, _)| *name == size).expect("a known size").1;
    let request = |first: &str| -> Rc<[u8]> {
        let (method, body) = if size == "up" { ("POST", vec![b'u'; 65_536]) } else { ("GET", Vec::new()) };
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-type: text/plain\r\ncontent-length: {}\r\n", body.len())
        };
        let head = format!(
            "{method} /{first}/{size}/orders/4711?expand=lines HTTP/1.1\r\nhost: localhost:{}\r\n\
             user-agent: checkout/1.4\r\naccept: application/json\r\naccept-encoding: gzip\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n{length}\r\n",
            to.port()
        );
        [head.as_bytes(), &body].concat().into()
    };
    let requests = match routes {
        None => vec![request(first)],
        // Spread over all of the table, in an order that is not the table's: 41 divides neither 99 nor 999.
        Some((all, asked)) => (0..asked)
            .map(|number| request(&format!("r{}", 1 + (number * 41) % asked * (all / asked))))
            .collect(),
    };
    Rc::new(Plan { requests, expected, streams: 0 })
}

/// The same without a `traceparent`.
pub fn untold(plan: &Plan) -> Rc<Plan> {
    let strip = |request: &Rc<[u8]>| -> Rc<[u8]> {
        let mut lines = request.split_inclusive(|byte| *byte == b'\n');
        let kept = |line: &&[u8]| !line.starts_with(b"traceparent:");
        lines.by_ref().filter(kept).flatten().copied().collect()
    };
    Rc::new(Plan { requests: plan.requests.iter().map(strip).collect(), ..*plan })
}

/// What a gRPC caller sends, on each connection so many calls at a time.
pub fn grpc_plan(to: SocketAddr, streams: usize) -> Rc<Plan> {
    let (path, authority) = (format!("/{}/{}", GRPC.0, GRPC.1), format!("localhost:{}", to.port()));
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", &authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.66.0"),
        ("grpc-accept-encoding", "gzip"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let mut request = Vec::new();
    engine::put_frame(&mut request, engine::HEADERS, engine::END_HEADERS, 0, &engine::literals(&fields));
    engine::put_frame(&mut request, engine::DATA, engine::END_STREAM, 0, &site::grpc_message());
    Rc::new(Plan { requests: vec![request.into()], expected: site::GRPC_MESSAGE, streams })
}

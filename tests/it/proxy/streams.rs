//! Bodies stream both ways, and little of them is held.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    thread,
};

use crate::support::{Caller, FakeServer, Reply, Sidecar, provider};

#[test]
fn promise_6_each_side_sees_the_other_s_bytes_before_the_body_ends() {
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let upstream = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        // Answers before the request is over, and each chunk with a chunk.
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for letter in [b'a', b'b', b'c'] {
            let mut chunk = [0; 6];
            reader.read_exact(&mut chunk).unwrap();
            assert_eq!(chunk, [b'1', b'\r', b'\n', letter, b'\r', b'\n']);
            stream.write_all(&chunk).unwrap();
        }
        let mut end = [0; 5];
        reader.read_exact(&mut end).unwrap();
        stream.write_all(b"0\r\n\r\n").unwrap();
        // The connection was used in both directions at once and may be kept; the caller decides when it is over.
        let _ = reader.read_line(&mut line);
    });
    let sidecar = Sidecar::to(&url, &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    let mut answer = caller.head();
    for next in ["1\r\nb\r\n", "1\r\nc\r\n", "0\r\n\r\n"] {
        answer.extend(caller.chunk().unwrap());
        caller.send(next);
    }
    assert_eq!(caller.chunk(), Some(Vec::new()));
    assert!(answer.ends_with(b"abc"));
    drop((caller, sidecar));
    upstream.join().unwrap();
}

#[test]
fn promise_6_a_body_of_more_than_64_kib_is_not_held_for_a_replay() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.fields("authorization")[..] {
        ["Bearer token-1"] => Reply::text(401, "old"),
        _ => Reply::text(200, "new"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for (length, status) in [(64 * 1024 + 1, 401), (64 * 1024, 200)] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"));
        caller.send("x".repeat(length));
        assert_eq!(caller.answer_to("PUT").status, status, "{length}");
    }
}

//! F26: what a bug costs. Here, because only the tests of the library have a request that meets one.

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use bytes::Bytes;
    use http::{Request, StatusCode};

    use crate::{
        app, config,
        shutdown::{self, Stage},
        telemetry::metrics::Metrics,
    };

    /// Answers whatever ends like a request, one after the other on a connection.
    fn upstream() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || {
                    let (mut stream, mut seen) = (stream.unwrap(), Vec::new());
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        seen.extend_from_slice(&buffer[..count]);
                        let chunked = seen.windows(7).any(|part| part == b"chunked");
                        if seen.ends_with(if chunked { b"0\r\n\r\n" } else { b"\r\n\r\n" }) {
                            seen.clear();
                            stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nok").unwrap();
                        }
                    }
                });
            }
        });
        address
    }

    /// Runs a test against a sidecar with one worker, so that whatever that loses all lose.
    fn with_sidecar(test: impl FnOnce(SocketAddr, &Metrics)) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("attache.toml");
        let route = format!("[routes.main]\nupstream = \"http://{}\"\ncredential = \"none\"\n", upstream());
        std::fs::write(&file, route).unwrap();
        let environment =
            [("PROXY__LISTEN", "127.0.0.1:0"), ("PROXY__WORKERS", "1"), ("ADMIN__LISTEN", "127.0.0.1:0")]
                .map(|(name, value)| (format!("ATTACHE__{name}"), value.to_owned()));
        let bound = app::build(&config::load(Some(&file), environment).unwrap()).unwrap();
        let (address, metrics) = (bound.proxy_addresses[0].tcp().unwrap(), bound.metrics.clone());
        let (trigger, shutdown) = shutdown::channel();
        let mover = trigger.clone();
        let running = thread::spawn(move || bound.run(&mover, &shutdown).unwrap());
        test(address, &metrics);
        trigger.advance(Stage::Now);
        running.join().unwrap();
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// All that comes until `end`, or until the connection ends.
    fn until(stream: &mut TcpStream, end: &str) -> String {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.ends_with(end) || end.is_empty() {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                count => text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
            }
        }
        text
    }

    fn counted(metrics: &Metrics, count: usize) -> bool {
        let series = format!("attache_own_answers_total{{reason=\"internal\",route=\"(none)\"}} {count}\n");
        String::from_utf8(metrics.render()).unwrap().contains(&series)
    }

    #[test]
    fn f26_a_panic_in_one_request_fails_that_request_alone_and_is_counted() {
        with_sidecar(|address, metrics| {
            let (mut within, mut kept) = (connect(address), connect(address));
            within.write_all(b"GET /within HTTP/1.1\r\nHost: local").unwrap();
            kept.write_all(b"GET /kept HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            assert!(until(&mut kept, "ok").starts_with("HTTP/1.1 200"));
            for count in 1..=3 {
                let mut broken = connect(address);
                broken.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Test-Panic: 1\r\n\r\n").unwrap();
                let told = until(&mut broken, "");
                assert!(
                    told.starts_with("HTTP/1.1 500") && told.contains("\"reason\":\"internal\""),
                    "{told}"
                );
                assert!(counted(metrics, count));
            }
            within.write_all(b"host\r\n\r\n").unwrap();
            kept.write_all(b"GET /kept HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            for stream in [&mut within, &mut kept] {
                assert!(until(stream, "ok").starts_with("HTTP/1.1 200"));
            }
        });
    }

    #[test]
    fn f26_a_panic_in_one_stream_fails_that_stream_alone_and_is_counted() {
        with_sidecar(|address, metrics| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                let connection = tokio::spawn(connection);
                let request = |method| Request::builder().method(method).uri("http://localhost/");
                let mut sender = sender.ready().await.unwrap();
                let within = request("POST").body(()).unwrap();
                let (within, mut body) = sender.send_request(within, false).unwrap();
                for count in 1..=3 {
                    sender = sender.ready().await.unwrap();
                    let broken = request("GET").header("x-test-panic", "1").body(()).unwrap();
                    let told = sender.send_request(broken, true).unwrap().0.await.unwrap();
                    assert_eq!(told.status(), StatusCode::INTERNAL_SERVER_ERROR);
                    assert!(counted(metrics, count));
                }
                body.send_data(Bytes::from_static(b"hello"), true).unwrap();
                assert_eq!(within.await.unwrap().status(), StatusCode::OK);
                sender = sender.ready().await.unwrap();
                let after = sender.send_request(request("GET").body(()).unwrap(), true).unwrap().0;
                assert_eq!(after.await.unwrap().status(), StatusCode::OK);
                connection.abort();
            });
        });
    }
}

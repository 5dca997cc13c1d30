//! How often a request allocates on its way, guards, policy of paths and metrics included. A test, because the benchmark sees a
//! stripped binary, whose allocator has no name by which it could be counted.

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener, TcpStream},
        os::unix::fs::PermissionsExt as _,
        thread,
    };

    use super::super::*;
    use crate::{
        config,
        readiness::Readiness,
        shutdown,
        telemetry::traces::Tracer,
        token::{Clock, Environment, Manager},
    };

    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

    /// Reads up to the end of a message without a body, or with `{}` for one.
    fn message(stream: &mut TcpStream, buffer: &mut [u8], end: &[u8]) -> usize {
        let mut len = 0;
        while !buffer[..len].ends_with(end) {
            match stream.read(&mut buffer[len..]) {
                Ok(count @ 1..) => len += count,
                _ => return 0,
            }
        }
        len
    }

    /// Answers requests, each of which must carry the token.
    fn upstream() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, mut buffer) = (listener.accept().unwrap().0, [0; 4096]);
            loop {
                let len = message(&mut stream, &mut buffer, b"\r\n\r\n");
                if len == 0 {
                    return;
                }
                assert!(memchr::memmem::find(&buffer[..len], b"Bearer fresh").is_some());
                stream.write_all(ANSWER).unwrap();
            }
        });
        address
    }

    /// How often a worker allocates while a caller sends so many requests on one connection.
    fn allocations(requests: u32) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let (file, token) = (folder.path().join("attache.toml"), folder.path().join("token"));
        let only_ours = std::fs::Permissions::from_mode(0o600);
        std::fs::write(&token, "fresh").unwrap();
        std::fs::set_permissions(&token, only_ours).unwrap();
        let text = format!(
            "[proxy]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n\
             [credentials.main]\ntype = \"file\"\ntoken = {{ file = \"{}\" }}\n\
             [routes.main]\npath = \"/v1\"\nupstream = \"http://{}\"\ncredential = \"main\"\n",
            token.display(),
            upstream()
        );
        std::fs::write(&file, text).unwrap();
        let config = config::load(Some(&file), []).unwrap();
        let environment = Environment {
            clock: Clock::default(),
            readiness: Readiness::new(),
            metrics: Metrics::new(),
            traces: Tracer::default(),
        };
        let control = tokio::runtime::Runtime::new().unwrap();
        let manager = Manager::build(&config.credentials, &environment).unwrap();
        control.block_on(async { manager.start() });
        let credential = |name: &str| manager.credential(name);
        let routes = Routes::build(&config.proxy, &config.routes, &credential, &environment.metrics).unwrap();
        let server = Server::bind(&config.proxy, routes, &environment.metrics).unwrap();

        let address = server.addresses().unwrap()[0].tcp().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let caller = thread::spawn(move || {
            let (mut stream, mut buffer) = (TcpStream::connect(address).unwrap(), [0; 4096]);
            for _ in 0..requests {
                let request = b"GET /v1/orders/4711?expand=lines HTTP/1.1\r\nhost: localhost\r\nuser-agent: checkout/1.4\r\n\
                                accept: application/json\r\naccept-encoding: gzip\r\n\r\n";
                stream.write_all(request).unwrap();
                let len = message(&mut stream, &mut buffer, b"{}");
                assert!(buffer[..len].starts_with(b"HTTP/1.1 200 OK\r\n"));
            }
            trigger.advance(Stage::Now);
        });
        let gate = Gate::new(16, Room::new(listener::open_files(), 1, 1), server.metrics.connections());
        let (outbox, inbox) = worker::inbox();
        let acceptor = Acceptor { bound: server.bound, outboxes: vec![outbox], gate };
        let runtime = worker::runtime().unwrap();
        // Those of this thread, which is the worker's.
        let counted = allocation_counter::measure(|| {
            worker::run(runtime, &server.limits, inbox, Some(acceptor), shutdown);
        });
        caller.join().unwrap();
        counted.count_total
    }

    #[test]
    fn a_request_allocates_once() {
        // What a connection and a worker need once is in both.
        let (few, many) = (allocations(100), allocations(1100));
        let each = many.saturating_sub(few) as f64 / 1000.0;
        assert!((0.5..1.1).contains(&each), "{each}, and not one");
    }
}

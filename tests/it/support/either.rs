//! Callers and upstreams that speak either HTTP, looked at in one way.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::Request;

use super::{
    Asked, Caller, FakeServer, Http2Caller, Http2Server, Received, Sidecar, echo, provider, websocket::Http,
};

/// An upstream that answers with the head of the request that it received.
pub enum Echo {
    One(FakeServer),
    Two(Http2Server, Arc<Mutex<Vec<Received>>>),
}

impl Echo {
    pub fn start(http: Http) -> Self {
        if http == Http::One {
            return Self::One(echo());
        }
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let noted = Arc::clone(&received);
        let server = Http2Server::start(move |mut asked| {
            let noted = Arc::clone(&noted);
            async move {
                let (body, trailers, complete) = asked.whole_body().await;
                let mut head = head(&asked);
                for (name, value) in trailers.iter().flatten() {
                    head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
                }
                let answer = head.clone();
                {
                    let mut noted = noted.lock().unwrap();
                    let number = noted.len() + 1;
                    noted.push(Received { number, head, body, complete });
                }
                if complete {
                    asked.answer(200, answer.as_bytes());
                }
            }
        });
        Self::Two(server, received)
    }

    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Two(server, _) => server.url(),
        }
    }

    /// The `Host` that it is asked for.
    pub fn host(&self) -> String {
        self.url().replace("http://", "")
    }

    pub fn received(&self) -> Vec<Received> {
        match self {
            Self::One(server) => server.received(),
            Self::Two(_, received) => received.lock().unwrap().clone(),
        }
    }

    /// Waits until so many requests have come, and their bodies.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        match self {
            Self::One(server) => server.wait_for(count),
            Self::Two(server, _) => {
                server.wait_for(count);
                while self.received().len() < count {
                    std::thread::yield_now();
                }
                self.received()
            }
        }
    }

    pub fn connections(&self) -> usize {
        match self {
            Self::One(server) => server.connections(),
            Self::Two(server, _) => server.connections(),
        }
    }
}

/// The head of a request over HTTP/2, as HTTP/1.1 would have it.
fn head(asked: &Asked) -> String {
    let (method, uri) = (&asked.head.method, &asked.head.uri);
    let target = uri.path_and_query().unwrap();
    let mut head = format!("{method} {target} HTTP/2\r\nhost: {}\r\n", uri.authority().unwrap());
    for (name, value) in &asked.head.headers {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    head
}

/// Runs a test against a sidecar before an upstream of either HTTP, with further lines for its route.
pub fn before_either(lines: &str, test: impl Fn(&Echo, &Sidecar)) {
    for http in [Http::One, Http::Two] {
        let (provider, upstream) = (provider(), Echo::start(http));
        let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("{}\n{lines}", http.protocol()));
        test(&upstream, &sidecar);
    }
}

/// The answer to a request, whichever HTTP it came by.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub body: Vec<u8>,
    pub reason: Option<String>,
    /// Whether it came to its end.
    pub complete: bool,
}

impl Told {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A caller that asks one thing after the other.
pub enum Client {
    One(SocketAddr, Option<Caller>),
    Two(Http2Caller),
}

impl Client {
    pub fn connect(http: Http, address: SocketAddr) -> Self {
        match http {
            Http::One => Self::One(address, None),
            Http::Two => Self::Two(Http2Caller::connect(address)),
        }
    }

    pub fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: Option<&[u8]>) -> Told {
        match self {
            Self::One(address, kept) => {
                let caller = kept.get_or_insert_with(|| Caller::connect(*address));
                let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
                for (name, value) in fields {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if let Some(body) = body {
                    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                }
                caller.send(format!("{head}\r\n"));
                caller.send(body.unwrap_or_default());
                let answer = caller.answer_to(method);
                let (reason, ends) = (answer.reason(), answer.field("connection") == Some("close"));
                if ends || !answer.complete {
                    *kept = None;
                }
                Told { status: answer.status, body: answer.body, reason, complete: answer.complete }
            }
            Self::Two(caller) => {
                let uri = format!("http://localhost{target}");
                let mut request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
                for (name, value) in fields {
                    request = request.header(*name, *value);
                }
                let answer = caller.ask(request.body(()).unwrap(), body);
                let reason = answer.reason();
                let complete = answer.reset.is_none();
                Told { status: answer.status, body: answer.body, reason, complete }
            }
        }
    }
}

/// One request on a connection of its own.
pub fn ask(http: Http, address: SocketAddr, method: &str, target: &str, body: Option<&[u8]>) -> Told {
    Client::connect(http, address).ask(method, target, &[], body)
}

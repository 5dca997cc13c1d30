//! A server of HTTP/1.1 by hand, so that it can also do what no library would.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The number of the request, from 1.
    pub number: usize,
    /// Request line and fields, as they came, without the last empty line.
    pub head: String,
    /// The body, without its chunks.
    pub body: Vec<u8>,
    /// Whether the body was complete.
    pub complete: bool,
}

impl Received {
    /// All values of a field.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// Method, target and version.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// What a fake does with a request.
#[derive(Clone)]
pub struct Reply {
    bytes: Vec<u8>,
    close: bool,
    endless: bool,
    then: Option<Arc<Then>>,
}

/// What a fake does with a connection that no longer speaks HTTP.
type Then = dyn Fn(&mut BufReader<TcpStream>, &mut TcpStream) + Send + Sync;

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reply({:?})", String::from_utf8_lossy(&self.bytes))
    }
}

impl Reply {
    /// These bytes; the connection stays open.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), close: false, endless: false, then: None }
    }

    /// A whole answer.
    pub fn text(status: u16, body: &str) -> Self {
        Self::raw(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    /// A whole answer with JSON.
    pub fn json(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::raw(format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Closes the connection without a byte.
    pub fn nothing() -> Self {
        Self::raw("").close()
    }

    /// Sends `x` after it until the other side has had enough.
    pub fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Goes on by hand after it.
    pub fn then(
        mut self,
        act: impl Fn(&mut BufReader<TcpStream>, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        self.then = Some(Arc::new(act));
        self
    }

    /// Closes the connection after it.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }
}

/// A fake that answers each request with what a function says.
pub struct FakeServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    changed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
    panics: Mutex<Vec<String>>,
    written: AtomicUsize,
}

impl FakeServer {
    pub fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (accepted, answer) = (Arc::clone(&shared), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                stream.set_nodelay(true).unwrap();
                accepted.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, answer) = (Arc::clone(&accepted), Arc::clone(&answer));
                thread::spawn(move || converse(&shared, stream, &*answer));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        if let Some(panic) = self.shared.panics.lock().unwrap().first() {
            panic!("a fake panicked: {panic}");
        }
        self.shared.received.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        let deadline = Instant::now() + PATIENCE;
        let mut received = self.shared.received.lock().unwrap();
        while received.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} of {count} requests came", received.len());
            received = self.shared.changed.wait_timeout(received, left).unwrap().0;
        }
        received.clone()
    }

    /// How many bytes of endless answers have left.
    pub fn endless_written(&self) -> usize {
        self.shared.written.load(Ordering::Acquire)
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// Closes every connection there is.
    pub fn close_connections(&self) {
        for stream in &*self.shared.connections.lock().unwrap() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        let panics = self.shared.panics.lock().map(|panics| panics.clone()).unwrap_or_default();
        if !thread::panicking() {
            assert!(panics.is_empty(), "a fake panicked: {panics:?}");
        }
    }
}

fn converse(shared: &Shared, stream: TcpStream, answer: &dyn Fn(&Received) -> Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(head) = head(&mut reader) {
        let mut request = Received { number: 0, head, body: Vec::new(), complete: false };
        request.complete = body(&mut reader, &mut request).is_some();
        request.number = {
            let mut received = shared.received.lock().unwrap();
            received.push(request.clone());
            let number = received.len();
            received.last_mut().unwrap().number = number;
            number
        };
        shared.changed.notify_all();
        let reply = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answer(&request)));
        let Ok(reply) = reply else {
            shared.panics.lock().unwrap().push(request.line().to_owned());
            return;
        };
        let sent = writer.write_all(&reply.bytes);
        while reply.endless && sent.is_ok() && writer.write_all(&[b'x'; 64 * 1024]).is_ok() {
            shared.written.fetch_add(64 * 1024, Ordering::AcqRel);
        }
        if let Some(act) = &reply.then {
            return act(&mut reader, &mut writer);
        }
        if sent.is_err() || reply.endless || reply.close || !request.complete {
            let _ = writer.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn head(reader: &mut impl std::io::BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let start = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[start..].trim_end().is_empty() {
            head.truncate(start);
            return Some(head);
        }
    }
}

fn body(reader: &mut BufReader<TcpStream>, request: &mut Received) -> Option<()> {
    if request.fields("transfer-encoding").first().is_some_and(|coding| *coding == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Some(());
            }
        }
    }
    let length = request.fields("content-length").first().map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = body;
    Some(())
}

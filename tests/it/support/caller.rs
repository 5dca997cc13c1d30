//! A caller that sends exactly the bytes that a test says.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::fake_server::PATIENCE;

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub complete: bool,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reason why attaché itself answered.
    pub fn reason(&self) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once("\"reason\":\"")?;
        Some(rest.split('"').next()?.to_owned())
    }
}

/// What a caller is connected by.
trait Wire: std::io::Read + std::io::Write + Send {
    fn wait_for(&self, time: Duration);
    fn finish(&self);
    fn reset(&self);
}

impl Wire for TcpStream {
    fn wait_for(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }

    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn reset(&self) {
        // Closing will reset the connection.
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Wire for UnixStream {
    fn wait_for(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }

    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn reset(&self) {
        // Closing will reset the connection.
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A connection to a sidecar.
pub struct Caller {
    stream: Box<dyn Wire>,
    buffer: Vec<u8>,
}

impl Caller {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    fn over(stream: impl Wire + 'static) -> Self {
        stream.wait_for(PATIENCE);
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has refused already may have closed.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        self.stream.finish();
    }

    /// Breaks the connection off.
    pub fn reset(self) {
        self.stream.reset();
    }

    /// How the connection breaks off.
    pub fn error(&mut self) -> String {
        match self.stream.read(&mut [0]) {
            Ok(count) => format!("{count} bytes"),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    /// Reads more; false at the end of the connection.
    fn more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                count > 0
            }
            Err(error) => {
                let timed_out =
                    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                assert!(!timed_out, "nothing came: {}", String::from_utf8_lossy(&self.buffer));
                false
            }
        }
    }

    /// Whether the connection stays open and nothing comes for so long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.wait_for(time);
        let mut byte = [0];
        let silent = self.buffer.is_empty() && self.stream.read(&mut byte).is_err();
        self.stream.wait_for(PATIENCE);
        silent
    }

    /// Reads one answer to a request with this method.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "the connection ended: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), complete: true };
        if status == 101 {
            return answer;
        }
        if status < 200 {
            return self.answer_to(method);
        }
        if method == "HEAD" || matches!(status, 204 | 304) {
            return answer;
        }
        let length = answer.field("content-length").map(|length| length.parse::<usize>().unwrap());
        if answer.field("transfer-encoding").is_some() {
            answer.complete = self.chunks(&mut answer.body);
        } else if let Some(length) = length {
            while self.buffer.len() < length && self.more() {}
            answer.complete = self.buffer.len() >= length;
            answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let end = loop {
                if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break at;
                }
                if !self.more() {
                    return false;
                }
            };
            let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            while self.buffer.len() < size + 2 {
                if !self.more() {
                    return false;
                }
            }
            body.extend(self.buffer.drain(..size + 2).take(size));
            if size == 0 {
                return true;
            }
        }
    }

    /// Reads the head of an answer only.
    pub fn head(&mut self) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                return self.buffer.drain(..at + 4).collect();
            }
            assert!(self.more());
        }
    }

    /// Reads one chunk; the last one is empty.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let size =
                    usize::from_str_radix(std::str::from_utf8(&self.buffer[..at]).unwrap(), 16).unwrap();
                if self.buffer.len() >= at + 2 + size + 2 {
                    let chunk = self.buffer.drain(..at + 2 + size + 2).skip(at + 2).take(size).collect();
                    return Some(chunk);
                }
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads so many bytes, or as many as come before the end.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.more() {}
        self.buffer.drain(..count.min(self.buffer.len())).collect()
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Everything that still comes until the other side closes.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Whether the connection is closed by the other side, with nothing more to come.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more() && self.buffer.is_empty()
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> Answer {
    let mut caller = Caller::connect(address);
    caller.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    caller.answer()
}

/// One POST on a connection of its own.
pub fn post(address: SocketAddr, target: &str, body: &[u8]) -> Answer {
    let mut caller = Caller::connect(address);
    caller
        .send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len()));
    caller.send(body);
    caller.answer_to("POST")
}

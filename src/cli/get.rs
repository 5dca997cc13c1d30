//! One GET over plain HTTP to the admin port, or to its Unix socket: enough for probes in images without a shell, and nothing more.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time,
};
use url::Url;

use super::Failure;
use crate::{config, listen::Listen};

/// More of an answer is not read.
const MAX_ANSWER: u64 = 1024 * 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    place: Place,
    path: String,
}

/// Where it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A host and a port.
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

/// The answer, as far as a probe needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Target {
    /// The admin port of the sidecar with this configuration.
    pub(super) fn of_config(file: Option<&Path>, path: &str) -> Result<Self, Failure> {
        // A port on all addresses is reached on loopback.
        let place = match config::load_admin_listen(file, config::environment()?)? {
            Listen::Unix(path) => Place::Unix(path),
            Listen::Tcp(address) if address.ip().is_unspecified() && address.is_ipv4() => {
                Place::Tcp(format!("127.0.0.1:{}", address.port()))
            }
            Listen::Tcp(address) if address.ip().is_unspecified() => {
                Place::Tcp(format!("[::1]:{}", address.port()))
            }
            Listen::Tcp(address) => Place::Tcp(address.to_string()),
        };
        Ok(Self { place, path: path.to_owned() })
    }

    /// What may be asked for on the admin port.
    pub(super) fn path(path: &str) -> Result<String, String> {
        // RFC 9112 §3.2.1: it begins with `/`, and a blank would end it.
        if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(path.to_owned())
        } else {
            Err("expected a path that begins with `/`, such as /readyz".to_owned())
        }
    }

    /// A whole `http://` URL.
    pub(super) fn of_url(url: &str) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            ("http", Some(host), Some(port)) => {
                Ok(Self { place: Place::Tcp(format!("{host}:{port}")), path: url.path().to_owned() })
            }
            _ => Err("expected http://HOST:PORT/PATH".to_owned()),
        }
    }

    /// Sends the request and reads the answer, all within `timeout`.
    pub(super) async fn get(&self, timeout: Duration) -> io::Result<Answer> {
        time::timeout(timeout, self.exchange())
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
    }

    async fn exchange(&self) -> io::Result<Answer> {
        match &self.place {
            Place::Tcp(address) => self.converse(TcpStream::connect(address).await?, address).await,
            Place::Unix(path) => self.converse(UnixStream::connect(path).await?, "localhost").await,
        }
    }

    async fn converse(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
    ) -> io::Result<Answer> {
        // HTTP/1.0, so that the answer ends with the connection and is never chunked.
        let request = format!("GET {} HTTP/1.0\r\nhost: {host}\r\n\r\n", self.path);
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut bytes).await?;
        parse(&String::from_utf8_lossy(&bytes))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(address) => write!(f, "http://{address}{}", self.path),
            Place::Unix(socket) => write!(f, "{} of unix:{}", self.path, socket.display()),
        }
    }
}

impl Answer {
    /// The answer on one line, safe for a terminal.
    pub(super) fn summary(&self) -> String {
        let body: String =
            self.body.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
        format!("{} {body}", self.status)
    }
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some(Answer { status: words.next()?.parse().ok()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body_or_not_http() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nno\n").unwrap();
        assert_eq!((answer.status, answer.summary().as_str()), (503, "503 no"));
        for text in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 x\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_path_begins_with_a_slash_and_is_one_word() {
        assert_eq!(Target::path("/readyz").as_deref(), Ok("/readyz"));
        for path in ["", "readyz", "/a b", "/a\r\nx: y", "/\u{e9}"] {
            assert!(Target::path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_url_is_plain_http() {
        let target = Target::of_url("http://[::1]:7090/readyz?x").unwrap();
        assert_eq!(target.to_string(), "http://[::1]:7090/readyz");
        assert!(Target::of_url("https://localhost/").is_err());
        assert!(Target::of_url("localhost:7090").is_err());
    }
}

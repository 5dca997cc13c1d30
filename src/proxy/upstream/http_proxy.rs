//! Through an HTTP proxy to an upstream: `CONNECT` (RFC 9110 §9.3.6), then the connection is as if it were made directly.
//!
//! Only where a route says so: the proxy variables of the environment are not read. What the proxy answers is read up to
//! the end of its head, within a limit; nothing of it reaches a caller.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task,
};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{ConnectError, Resolver, connect};
use crate::{
    invalid::Invalid,
    proxy::config::{HttpProxyAuthConfig, RouteConfig},
    secret::{Secret, SecretError, SecretSource},
};

/// Most that is read of what the proxy answers.
const MAX_HEAD: usize = 16 * 1024;

/// A proxy that is ready to be asked.
#[derive(Debug)]
pub(super) struct HttpProxy {
    resolver: Resolver,
    auth: Option<Auth>,
}

/// A name and a password for it (RFC 7617).
#[derive(Debug)]
struct Auth {
    username: String,
    source: SecretSource,
    // The last good password, and what was last complained about. Locked when a connection is opened.
    last: Mutex<(Secret, Option<SecretError>)>,
}

impl HttpProxy {
    /// Checks the keys of a route; nothing when it has no proxy.
    pub(super) fn build(config: &RouteConfig) -> Result<Option<Self>, Invalid> {
        let auth = &config.http_proxy_auth;
        let Some(url) = &config.http_proxy else {
            return match *auth == HttpProxyAuthConfig::default() {
                true => Ok(None),
                false => Err(Invalid::new("http_proxy_auth", "is given, but there is no `http_proxy`")
                    .hint("add `http_proxy = \"http://proxy.example.com:3128\"`, or remove it")),
            };
        };
        let invalid = |message| {
            Invalid::new("http_proxy", message).hint("write it like `http://proxy.example.com:3128`")
        };
        let url = Url::parse(url).map_err(|_| invalid("is not the URL of a proxy"))?;
        if url.scheme() != "http" {
            return Err(invalid(
                "does not begin with `http://`, the only way in which proxies are spoken to",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Invalid::new("http_proxy", "holds a user name or a password")
                .hint("they have a section of their own: `[routes.NAME.http_proxy_auth]`"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("holds more than a host and a port"));
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(invalid("names no host")),
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let auth = Auth::build(auth, loopback).map_err(|mistake| mistake.under("http_proxy_auth"))?;
        let port = url.port_or_known_default().unwrap_or(80);
        // The password was promised to this machine when the URL was checked, by its name; it holds for the address too.
        Ok(Some(Self { resolver: Resolver::new(host, port, loopback), auth }))
    }

    /// A connection to `authority`, a host and a port, by way of the proxy.
    pub(super) async fn connect(&self, authority: &str) -> Result<TcpStream, ConnectError> {
        let mut stream = connect::tcp(&self.resolver).await.map_err(|error| {
            ConnectError::ProxyUnreachable(match error {
                ConnectError::Unresolved(error) | ConnectError::Unreachable(error) => error,
                other => io::Error::other(other),
            })
        })?;
        let authorization = match &self.auth {
            None => Zeroizing::default(),
            Some(auth) => auth.field().await,
        };
        let request = Zeroizing::new(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n",
            authorization.as_str()
        ));
        ask(&mut stream, request.as_bytes()).await?;
        Ok(stream)
    }
}

/// Sends the request, and reads answers until one is final.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> Result<(), ConnectError> {
    let broken = ConnectError::ProxyUnreachable;
    stream.write_all(request).await.map_err(broken)?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    let mut end = 0;
    loop {
        while let Some(length) = memchr::memmem::find(&head[end..], b"\r\n\r\n") {
            let status = status(&head[end..]).ok_or(ConnectError::ProxyInvalid)?;
            end += length + 4;
            match status {
                100..200 => {}
                // Nothing can follow: the one behind the proxy has not been asked anything.
                200..300 if end == head.len() => return Ok(()),
                200..300 => return Err(ConnectError::ProxyInvalid),
                407 => return Err(ConnectError::ProxyAuthentication),
                _ => return Err(ConnectError::ProxyRefused(status)),
            }
        }
        match stream.read(&mut buffer).await.map_err(broken)? {
            0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            count if head.len() + count > MAX_HEAD => return Err(ConnectError::ProxyInvalid),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The status code of `HTTP/1.1 200 ...`.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    match rest {
        [b'0' | b'1', b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ' | b'\r', ..] => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}

impl Auth {
    fn build(config: &HttpProxyAuthConfig, loopback: bool) -> Result<Option<Self>, Invalid> {
        let (username, password) = match (&config.username, &config.password) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(Invalid::new("password", "is missing, and `username` needs it")),
            (None, Some(_)) => return Err(Invalid::new("username", "is missing, and `password` needs it")),
            (Some(username), Some(password)) => (username, password),
        };
        // RFC 7617 §2.
        if username.contains(':') || username.contains(char::is_control) {
            return Err(Invalid::new(
                "username",
                "holds a `:` or a control character, which Basic cannot carry",
            ));
        }
        if !loopback && !config.unsafe_plaintext {
            return Err(Invalid::new("password", "would be sent in plain text to another machine").hint(
                "let the proxy know this machine by its address, or set `unsafe_plaintext = true` if everybody on the way \
                 to it may read the password",
            ));
        }
        let source = password.check().map_err(|mistake| mistake.under("password"))?;
        let secret =
            source.read().map_err(|error| Invalid::new("password", error.to_string()).hint(error.cure()))?;
        Ok(Some(Self { username: username.clone(), source, last: Mutex::new((secret, None)) }))
    }

    /// The header, with the password as it is now.
    async fn field(&self) -> Zeroizing<String> {
        let read = match self.source.can_change() {
            false => None,
            true => {
                let source = self.source.clone();
                // A file may be on a disk that hangs: the worker must not.
                task::spawn_blocking(move || source.read()).await.ok()
            }
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Some(Ok(secret)) => *last = (secret, None),
            Some(Err(error)) if last.1.as_ref() != Some(&error) => {
                tracing::warn!(%error, "the password of a proxy cannot be read; the last good one stays in use");
                last.1 = Some(error);
            }
            _ => {}
        }
        let pair = Zeroizing::new(format!("{}:{}", self.username, last.0.expose()));
        let basic = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
        Zeroizing::new(format!("Proxy-Authorization: Basic {}\r\n", basic.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_of_http_1_has_a_status() {
        for (line, expected) in [
            ("HTTP/1.1 200 Connection established\r\n", Some(200)),
            ("HTTP/1.0 407 \r\n", Some(407)),
            ("HTTP/1.1 200\r\n", Some(200)),
            ("HTTP/1.1 2000 X\r\n", None),
            ("HTTP/1.1 20 X\r\n", None),
            ("HTTP/1.1 000 X\r\n", None),
            ("HTTP/2 200 X\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_mistake_in_the_keys_of_a_proxy_names_the_key() {
        let mut config = RouteConfig::new("https://a.example", "orders");
        for (url, good) in [
            ("http://proxy.example.com:3128", true),
            ("http://[::1]:3128/", true),
            ("https://proxy.example.com", false),
            ("proxy:3128", false),
            ("http://u:p@proxy:3128", false),
            ("http://proxy:3128/path", false),
            ("socks5://proxy", false),
        ] {
            config.http_proxy = Some(url.into());
            match HttpProxy::build(&config) {
                Ok(proxy) => assert!(good && proxy.is_some(), "{url}"),
                Err(mistake) => assert!(!good && mistake.key() == "http_proxy", "{url}: {mistake}"),
            }
        }
        for (url, here) in [("http://localhost:3128", true), ("http://proxy.example.com:3128", false)] {
            config.http_proxy = Some(url.into());
            let told = format!("{:?}", HttpProxy::build(&config).unwrap());
            assert!(told.contains(&format!("loopback_only: {here}")), "{told}");
        }
        config.http_proxy_auth.username = Some("checkout".into());
        assert_eq!(HttpProxy::build(&config).unwrap_err().key(), "http_proxy_auth.password");
        config.http_proxy = None;
        assert_eq!(HttpProxy::build(&config).unwrap_err().key(), "http_proxy_auth");
    }
}

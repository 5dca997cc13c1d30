//! The name, a connection, TLS: the steps that every provider has in common.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustls::{CertificateError, ClientConnection, pki_types::ServerName};
use tokio::{net::lookup_host, task, time};
use url::Url;

use super::{Trouble, Walk};
use crate::{tls, token::http::HttpConfig};

/// For each step, and each address.
const PATIENCE: Duration = Duration::from_secs(5);

/// A URL without what may be secret in it.
pub(super) fn place(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_and_port(url), url.path())
}

fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Walk {
    /// Name, connection and TLS to where this URL leads; false when a step failed.
    pub(super) async fn reach(&mut self, url: &Url, how: &HttpConfig) -> bool {
        // The proxy connects for us: only the way to it can be looked at, and what is behind it shows in the next step.
        let proxy = how.proxy.as_deref().and_then(|proxy| Url::parse(proxy).ok());
        let to = proxy.as_ref().unwrap_or(url);
        let Some(addresses) = self.resolve(to).await else { return false };
        let Some(stream) = self.connect(to, addresses).await else { return false };
        match url.scheme() {
            "https" if proxy.is_none() => self.handshake(url, how.clone(), stream).await,
            _ => true,
        }
    }

    async fn resolve(&mut self, url: &Url) -> Option<Vec<SocketAddr>> {
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default()?;
        let found = time::timeout(PATIENCE, lookup_host((host.as_str(), port))).await;
        let addresses: Vec<_> = match found {
            Ok(Ok(found)) => found.collect(),
            _ => Vec::new(),
        };
        let Some(first) = addresses.first() else {
            self.fail(
                "dns",
                Trouble {
                    reason: "unresolved",
                    message: format!("the name `{host}` does not resolve"),
                    hint: "check the spelling of the host, and DNS; or set `http_proxy` if a proxy is the only way"
                        .to_owned(),
                },
            );
            return None;
        };
        self.ok("dns", format!("{host} is {}", first.ip()));
        Some(addresses)
    }

    async fn connect(&mut self, url: &Url, addresses: Vec<SocketAddr>) -> Option<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.into_iter().take(4) {
            let attempt = task::spawn_blocking(move || TcpStream::connect_timeout(&address, PATIENCE)).await;
            match attempt {
                Ok(Ok(stream)) => {
                    self.ok("tcp", format!("connected to {address}"));
                    return Some(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        self.fail(
            "tcp",
            Trouble {
                reason: "unreachable",
                message: format!("nothing accepts a connection at {}: {}", host_and_port(url), last.kind()),
                hint: "check the port, whether the provider is up, and whether a firewall stands in between"
                    .to_owned(),
            },
        );
        None
    }

    async fn handshake(&mut self, url: &Url, how: HttpConfig, stream: TcpStream) -> bool {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = host.clone();
        let attempt = task::spawn_blocking(move || handshake(&name, how, stream)).await;
        let error = match attempt.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
            Ok(version) => {
                self.ok("tls", version);
                return true;
            }
            Err(error) => error,
        };
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let (message, hint) = explain(&host, cause);
        self.fail("tls", Trouble { reason: "tls", message, hint });
        false
    }
}

/// Blocking. Whether the provider knows our certificate shows here with TLS 1.2, and with TLS 1.3 in the next step only.
fn handshake(host: &str, how: HttpConfig, mut stream: TcpStream) -> io::Result<&'static str> {
    let config = tls::client_config_as(how.identity, how.ca_file.as_deref(), &[b"http/1.1"])
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2, certificate trusted",
        _ => "TLS 1.3, certificate trusted",
    })
}

fn explain(host: &str, cause: Option<&rustls::Error>) -> (String, String) {
    let (message, hint) = match cause {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::UnknownIssuer => (
                "the certificate is of an authority that is not trusted here".to_owned(),
                "name that authority's certificate in `ca_file`",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                format!("the certificate is not for `{host}`"),
                "write the host as it stands in the provider's certificate",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "the certificate has expired".to_owned(),
                "renew the provider's certificate, or set this machine's clock",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the certificate is not valid yet".to_owned(), "set this machine's clock")
            }
            _ => (
                "the certificate is not acceptable".to_owned(),
                "look at it with `openssl s_client`, and renew it",
            ),
        },
        Some(rustls::Error::AlertReceived(_)) => (
            "the server refused the handshake".to_owned(),
            "look into the server's log; it may offer no TLS 1.2 or 1.3, or want another client certificate",
        ),
        _ => (
            "there is no TLS".to_owned(),
            "check the port: what listens there does not speak TLS, or something in between breaks it",
        ),
    };
    (message, hint.to_owned())
}

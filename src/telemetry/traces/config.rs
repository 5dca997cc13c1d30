//! What the operator wrote about traces, and where that leads.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::{
    duration::Span,
    invalid::{Invalid, not_a_url},
    secret::{SecretRef, SecretSource},
};

/// The section `[traces]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Where spans are sent: the URL of an OTLP collector. Without it nothing is traced.
    pub endpoint: Option<String>,
    /// How they are sent.
    #[serde(default)]
    pub protocol: Protocol,
    /// Headers for the collector, whose values are secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretRef>,
    /// The share of requests without a trace of their caller's that begin one, from 0 to 1.
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    #[serde(default = "sample_ratio")]
    pub sample_ratio: f64,
    /// What this service is called in traces.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// Whether spans show the query of a request.
    #[serde(default)]
    pub query: bool,
    /// How long sending a batch may take.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// A PEM file with an authority for the collector's certificate.
    pub ca_file: Option<PathBuf>,
    /// Allow a collector that is not loopback without TLS.
    #[serde(default)]
    pub unsafe_plaintext: bool,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::default(),
            headers: BTreeMap::new(),
            sample_ratio: sample_ratio(),
            service_name: service_name(),
            query: false,
            timeout: timeout(),
            ca_file: None,
            unsafe_plaintext: false,
        }
    }
}

// Numbers that compare with themselves: `NaN` is refused when the configuration is read.
impl Eq for TracesConfig {}

fn sample_ratio() -> f64 {
    1.0
}

fn service_name() -> String {
    "attache".into()
}

fn timeout() -> Span {
    Span::secs(10)
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Protocol {
    /// OTLP over HTTP, usually on port 4318.
    #[default]
    #[serde(rename = "http/protobuf")]
    Http,
    /// OTLP over gRPC, usually on port 4317.
    #[serde(rename = "grpc")]
    Grpc,
}

/// A checked collector.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Plain text was promised to this machine: of its name, no other address counts.
    pub(super) loopback_only: bool,
    /// What is asked for, with scheme and authority as HTTP/2 wants them.
    pub(super) uri: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(HeaderName, SecretSource)>,
    pub(super) timeout: Duration,
    pub(super) ca_file: Option<PathBuf>,
}

impl Collector {
    /// Whether spans may be sent to this address of its name.
    pub(super) fn may_be_at(&self, address: &SocketAddr) -> bool {
        !self.loopback_only || address.ip().is_loopback()
    }
}

impl TracesConfig {
    /// Checks the section; none when nothing is traced.
    pub(super) fn collector(&self) -> Result<Option<Collector>, Invalid> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(Invalid::new("sample_ratio", "is not between 0 and 1"));
        }
        if self.timeout.0.is_zero() {
            return Err(Invalid::new("timeout", "is 0, so that nothing could be sent"));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let invalid = |message: &str| Invalid::new("endpoint", message);
        let url = Url::parse(endpoint)
            .map_err(|error| invalid(&not_a_url(error)).hint("write it like `http://127.0.0.1:4318`"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(invalid("is neither https nor http").hint("write it like `http://127.0.0.1:4318`"));
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(invalid("names no host")),
        };
        let tls = url.scheme() == "https";
        if !(tls || loopback || self.unsafe_plaintext) {
            return Err(invalid("would carry spans in plain text to another machine")
                .hint("use https, or set `unsafe_plaintext = true` if everybody on the way may read them"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("holds a user name or a password")
                .hint("write `headers = { authorization = { file = \"/run/secrets/collector\" } }`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("holds a query or a fragment"));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        let host = url.host_str().unwrap_or_default();
        let base = url.path().trim_end_matches('/');
        let path = match self.protocol {
            Protocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export".into(),
            // As OTEL_EXPORTER_OTLP_ENDPOINT has it; the whole path, as OTEL_EXPORTER_OTLP_TRACES_ENDPOINT has it.
            Protocol::Http if base.ends_with("/v1/traces") => base.to_owned(),
            Protocol::Http => format!("{base}/v1/traces"),
        };
        let uri = format!("{}://{host}:{port}{path}", url.scheme());
        Ok(Some(Collector {
            tls,
            host: host.trim_matches(['[', ']']).into(),
            port,
            loopback_only: !tls && !self.unsafe_plaintext,
            uri: uri.parse().map_err(|_| invalid("cannot be asked for"))?,
            protocol: self.protocol,
            headers: self.headers.iter().map(header).collect::<Result<_, _>>()?,
            timeout: self.timeout.0,
            ca_file: self.ca_file.clone(),
        }))
    }
}

fn header((name, secret): (&String, &SecretRef)) -> Result<(HeaderName, SecretSource), Invalid> {
    let key = format!("headers.{name}");
    let header = HeaderName::try_from(name.as_str())
        .map_err(|_| Invalid::new(key.as_str(), "is not the name of a header"))?;
    let source = secret.check().map_err(|mistake| mistake.under(&key))?;
    if source.read().ok().and_then(|secret| HeaderValue::try_from(secret.expose()).ok()).is_none() {
        return Err(Invalid::new(key, "has a value that no header can carry"));
    }
    Ok((header, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str, protocol: Protocol) -> TracesConfig {
        TracesConfig { endpoint: Some(endpoint.into()), protocol, ..TracesConfig::default() }
    }

    #[test]
    fn the_endpoint_leads_where_opentelemetry_says() {
        for (endpoint, protocol, uri) in [
            ("http://127.0.0.1:4318", Protocol::Http, "http://127.0.0.1:4318/v1/traces"),
            ("https://otlp.example/base/", Protocol::Http, "https://otlp.example:443/base/v1/traces"),
            ("https://otlp.example/v1/traces", Protocol::Http, "https://otlp.example:443/v1/traces"),
            (
                "http://[::1]:4317",
                Protocol::Grpc,
                "http://[::1]:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            ),
        ] {
            assert_eq!(config(endpoint, protocol).collector().unwrap().unwrap().uri, uri);
        }
        assert!(TracesConfig::default().collector().unwrap().is_none());
    }

    #[test]
    fn without_tls_no_address_but_of_this_machine_counts_unless_the_operator_says_so() {
        let away = "10.0.0.1:4318".parse().unwrap();
        for (endpoint, unsafe_plaintext, expected) in [
            ("http://localhost:4318", false, false),
            ("http://localhost:4318", true, true),
            ("https://collector.example", false, true),
        ] {
            let config = TracesConfig { unsafe_plaintext, ..config(endpoint, Protocol::Http) };
            let collector = config.collector().unwrap().unwrap();
            assert_eq!(collector.may_be_at(&away), expected, "{endpoint}");
            assert!(collector.may_be_at(&"127.0.0.1:4318".parse().unwrap()));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (endpoint, part) in [
            ("collector:4318", "neither"),
            ("http://collector.example:4318", "plain text"),
            ("https://user:hunter2@collector.example", "password"),
            ("https://collector.example/?x=1", "query"),
        ] {
            let error = config(endpoint, Protocol::Http).collector().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
        }
        for ratio in [-0.1, 1.1, f64::NAN] {
            let config = TracesConfig { sample_ratio: ratio, ..TracesConfig::default() };
            assert_eq!(config.collector().unwrap_err().key(), "sample_ratio");
        }
    }
}

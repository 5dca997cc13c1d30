//! Who may speak to a local port: the check of `Host`, `Origin` and `Sec-Fetch-Site` that both ports use.
//!
//! A web page in a browser on the same machine can send requests to a loopback port, and can make a name of its own
//! resolve to it (DNS rebinding). Browsers tell where such a request comes from; whoever is not a browser does not
//! send those headers. So a foreign `Host`, any `Origin` that is not allowed and any `Sec-Fetch-Site` other than
//! `none` are refused, for every method.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName,
    header::{HOST, ORIGIN},
    uri::Authority,
};

/// `Sec-Fetch-Site` (W3C Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The hosts and origins that a port answers to.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    hosts: Vec<String>,
    origins: Vec<String>,
    required_header: Option<HeaderName>,
    any_ip: bool,
    port: Option<u16>,
    ips: Vec<IpAddr>,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` is missing, repeated, empty or malformed (RFC 9112 §3.2).
    MalformedHost,
    /// `Host` names somebody else.
    ForeignHost,
    /// A web page of an origin that is not allowed sent the request.
    ForeignOrigin,
    /// The header that callers must send is missing.
    RequiredHeader,
}

impl Guard {
    /// A guard for a port bound to `address`, or for a Unix socket: always the loopback names, and the address itself.
    /// A port bound to all addresses answers to any IP literal, because DNS rebinding needs a name.
    pub fn new(address: Option<SocketAddr>) -> Self {
        let port = address.map(|address| address.port()).filter(|port| *port != 0);
        let mut guard = Self { port, ..Self::default() };
        match address.map(|address| address.ip()) {
            Some(ip) if ip.is_unspecified() => guard.any_ip = true,
            Some(ip) => guard.ips.push(ip),
            None => {}
        }
        guard
    }

    /// Also answers to these names, compared without case and without their port.
    #[must_use]
    pub fn hosts<S: AsRef<str>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.hosts.extend(hosts.into_iter().map(|host| host.as_ref().to_ascii_lowercase()));
        self
    }

    /// Also answers to web pages of these origins (`https://app.example`, RFC 6454 §6.2).
    #[must_use]
    pub fn origins<S: Into<String>>(mut self, origins: impl IntoIterator<Item = S>) -> Self {
        self.origins.extend(origins.into_iter().map(Into::into));
        self
    }

    /// Refuses requests without this header. A page of another origin cannot add it without being asked first.
    #[must_use]
    pub fn required_header(mut self, name: Option<HeaderName>) -> Self {
        self.required_header = name;
        self
    }

    /// Checks a request's header fields and returns the host that was asked for, without its port.
    ///
    /// `authority` is the authority of the request target, when it has one (absolute-form, or `:authority`).
    pub fn check<'a>(
        &self,
        headers: &'a HeaderMap,
        authority: Option<&'a Authority>,
    ) -> Result<&'a str, Refusal> {
        let host = self.host(headers, authority)?;
        // Few callers have what browsers send; asking for each costs more than to look at what is there.
        let is_browser = headers.keys().any(|name| *name == ORIGIN || *name == SEC_FETCH_SITE);
        if is_browser {
            self.check_browser(headers)?;
        }
        match &self.required_header {
            Some(name) if !headers.contains_key(name) => Err(Refusal::RequiredHeader),
            _ => Ok(host),
        }
    }

    fn check_browser(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next();
        if let Some(origin) = origin {
            let allowed = self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
            if !allowed || origins.next().is_some() {
                return Err(Refusal::ForeignOrigin);
            }
        }
        // A page of an allowed origin is cross-site by nature; its `Origin` has just been checked.
        let sites = headers.get_all(SEC_FETCH_SITE).iter();
        if origin.is_none() && sites.into_iter().any(|site| site != "none") {
            return Err(Refusal::ForeignOrigin);
        }
        Ok(())
    }

    /// Whether a request that was sent as to a proxy (absolute-form, RFC 9112 §3.2.2) belongs here: it is for one of the
    /// names, or for this very port. A loopback address with another port is another service of this machine, which must
    /// not be taken for an upstream.
    pub fn is_meant(&self, authority: Option<&Authority>) -> bool {
        let Some(authority) = authority else { return false };
        let Some(host) = host_of(authority.as_str().as_bytes()) else { return false };
        let port = authority.port_u16().unwrap_or(80);
        self.names(host) || (self.port == Some(port) && self.answers_to(host))
    }

    fn host<'a>(&self, headers: &'a HeaderMap, authority: Option<&'a Authority>) -> Result<&'a str, Refusal> {
        let mut lines = headers.get_all(HOST).iter();
        let host = match (lines.next(), lines.next()) {
            (Some(line), None) => host_of(line.as_bytes()).ok_or(Refusal::MalformedHost)?,
            // HTTP/2 requests carry `:authority` instead (RFC 9113 §8.3.1).
            (None, None) => match authority {
                Some(authority) => host_of(authority.as_str().as_bytes()).ok_or(Refusal::MalformedHost)?,
                None => return Err(Refusal::MalformedHost),
            },
            _ => return Err(Refusal::MalformedHost),
        };
        if !self.answers_to(host) {
            return Err(Refusal::ForeignHost);
        }
        match authority.map(|authority| host_of(authority.as_str().as_bytes())) {
            None => Ok(host),
            // RFC 9112 §3.2.2: the target's authority wins over `Host`; a request in which they differ is not plain.
            Some(Some(target)) if target.eq_ignore_ascii_case(host) => Ok(host),
            Some(Some(_)) => Err(Refusal::ForeignHost),
            Some(None) => Err(Refusal::MalformedHost),
        }
    }

    fn answers_to(&self, host: &str) -> bool {
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return ip.is_loopback() || self.any_ip || self.ips.contains(&ip) || self.names(host);
        }
        host.eq_ignore_ascii_case("localhost") || self.names(host)
    }

    fn names(&self, host: &str) -> bool {
        self.hosts.iter().any(|allowed| host.eq_ignore_ascii_case(allowed))
    }
}

/// The host of `uri-host [":" port]` (RFC 9110 §7.2), or nothing when it is empty or malformed.
fn host_of(value: &[u8]) -> Option<&str> {
    let (host, port) = match value.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b']')? + 2;
            str::from_utf8(&rest[..end - 2]).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            value.split_at(end)
        }
        None => {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            let end = value.iter().position(|byte| !plain(byte)).unwrap_or(value.len());
            if end == 0 {
                return None;
            }
            value.split_at(end)
        }
    };
    let host = str::from_utf8(host).ok()?;
    match port {
        // An empty port is the default one (RFC 3986 §3.2.3).
        [] | [b':'] => Some(host),
        [b':', port @ ..] => {
            let number = str::from_utf8(port).ok()?.parse::<u16>();
            (port.iter().all(u8::is_ascii_digit) && number.is_ok()).then_some(host)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn loopback() -> Guard {
        Guard::new(Some("127.0.0.1:7080".parse().unwrap()))
    }

    #[test]
    fn loopback_names_are_answered_with_any_port() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:7080",
            "localhost:1",
            "LocalHost",
            "[::1]:7080",
            "127.9.9.9",
            "localhost:",
        ] {
            assert!(loopback().check(&headers(&[("host", host)]), None).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_malformed_host_is_told_from_a_foreign_one() {
        for host in [
            "",
            " ",
            "a b",
            "localhost:x",
            "localhost:99999",
            "user@localhost",
            "[::1",
            "[x]",
            "a/b",
            "a,b",
            ":80",
        ] {
            let fields = headers(&[("host", host)]);
            assert_eq!(loopback().check(&fields, None), Err(Refusal::MalformedHost), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "localhost."] {
            let fields = headers(&[("host", host)]);
            assert_eq!(loopback().check(&fields, None), Err(Refusal::ForeignHost), "{host}");
        }
    }

    #[test]
    fn host_must_stand_exactly_once() {
        assert_eq!(loopback().check(&headers(&[]), None), Err(Refusal::MalformedHost));
        let twice = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(loopback().check(&twice, None), Err(Refusal::MalformedHost));
    }

    #[test]
    fn the_authority_of_an_absolute_target_must_be_the_host() {
        let fields = headers(&[("host", "localhost")]);
        let check =
            |authority: &str| loopback().check(&fields, Some(&authority.parse().unwrap())).map(|_| ());
        assert_eq!(check("localhost:7080"), Ok(()));
        assert_eq!(check("127.0.0.1"), Err(Refusal::ForeignHost));
        assert_eq!(check("user@localhost"), Err(Refusal::MalformedHost));
    }

    #[test]
    fn web_pages_are_refused_unless_their_origin_is_allowed() {
        let guard = loopback().origins(["https://app.example"]);
        for (name, value, expected) in [
            ("origin", "https://app.example", Ok("localhost")),
            ("origin", "https://evil.example", Err(Refusal::ForeignOrigin)),
            ("origin", "null", Err(Refusal::ForeignOrigin)),
            ("origin", "", Err(Refusal::ForeignOrigin)),
            ("sec-fetch-site", "none", Ok("localhost")),
            ("sec-fetch-site", "same-origin", Err(Refusal::ForeignOrigin)),
            ("sec-fetch-site", "cross-site", Err(Refusal::ForeignOrigin)),
        ] {
            assert_eq!(
                guard.check(&headers(&[("host", "localhost"), (name, value)]), None),
                expected,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_port_on_all_addresses_answers_to_ip_literals_but_not_to_names() {
        let guard = Guard::new(Some("0.0.0.0:7090".parse().unwrap()));
        assert!(guard.check(&headers(&[("host", "10.1.2.3:7090")]), None).is_ok());
        assert!(guard.check(&headers(&[("host", "rebound.example:7090")]), None).is_err());
    }

    #[test]
    fn further_hosts_and_a_required_header_are_the_operators_choice() {
        let guard =
            loopback().hosts(["Orders.Internal"]).required_header(Some(HeaderName::from_static("x-caller")));
        let without = headers(&[("host", "orders.internal:8080")]);
        assert_eq!(guard.check(&without, None), Err(Refusal::RequiredHeader));
        let with = headers(&[("host", "orders.internal"), ("x-caller", "1")]);
        assert_eq!(guard.check(&with, None), Ok("orders.internal"));
    }

    #[test]
    fn as_a_proxy_it_serves_its_names_and_itself() {
        let guard = |address: &str| Guard::new(Some(address.parse().unwrap())).hosts(["orders.example"]);
        let fixed = guard("127.0.0.1:7080");
        for (authority, expected) in [
            ("orders.example", true),
            ("ORDERS.example:443", true),
            ("orders.example.evil.example", false),
            ("evil.example", false),
            ("127.0.0.1:7080", true),
            ("localhost:7080", true),
            ("localhost:9999", false),
            ("127.0.0.1", false),
            ("[::1]:7080", true),
            ("10.0.0.1:7080", false),
        ] {
            let authority = authority.parse::<Authority>().unwrap();
            assert_eq!(fixed.is_meant(Some(&authority)), expected, "{authority}");
        }
        // Of a port that the kernel chose, and of a Unix socket, only names are known.
        let itself = "127.0.0.1:0".parse::<Authority>().unwrap();
        assert!(!guard("127.0.0.1:0").is_meant(Some(&itself)));
        assert!(!Guard::new(None).is_meant(Some(&"localhost".parse::<Authority>().unwrap())));
        assert!(!fixed.is_meant(None));
    }
}

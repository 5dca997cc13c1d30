//! `rewrite_location`: an upstream's redirect to itself comes back as an address of attaché, anything else as it came.
//!
//! What comes back is a path without a host (RFC 9110 §10.2.2), which the caller resolves against the address that it
//! asked: so it leads back here, whatever name the caller uses.

use http::{HeaderMap, HeaderValue, header::LOCATION};

use super::upstream::Target;

/// How the addresses of an upstream read on this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    tls: bool,
    host: Box<str>,
    port: u16,
    // What stands in front there, and here.
    base: Box<str>,
    prefix: Box<str>,
}

impl Local {
    /// `stripped` is the prefix that the route removes from what it forwards.
    pub(super) fn new(target: &Target, stripped: &str) -> Self {
        Self {
            tls: target.tls,
            host: target.host.as_str().into(),
            port: target.port,
            base: target.base.as_str().into(),
            prefix: stripped.into(),
        }
    }

    /// Rewrites the one `Location` of an answer.
    pub(super) fn rewrite(&self, headers: &mut HeaderMap) {
        let mut lines = headers.get_all(LOCATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return };
        let local = line.to_str().ok().and_then(|line| self.local(line));
        if let Some(value) = local.and_then(|local| HeaderValue::try_from(local).ok()) {
            headers.insert(LOCATION, value);
        }
    }

    fn local(&self, location: &str) -> Option<String> {
        let path = self.own_path(location)?;
        let below = path.strip_prefix(&*self.base)?;
        if !below.is_empty() && !below.starts_with(['/', '?', '#']) {
            return None;
        }
        let slash = if self.prefix.is_empty() && !below.starts_with('/') { "/" } else { "" };
        let local = format!("{}{slash}{below}", self.prefix);
        // Two slashes begin the name of another host (RFC 3986 §4.2), and a browser reads a backslash as a slash.
        (!local.starts_with("//") && !local.contains('\\')).then_some(local)
    }

    /// The path and what follows it, if this is an address of the upstream.
    fn own_path<'a>(&self, location: &'a str) -> Option<&'a str> {
        let scheme = if self.tls { "https:" } else { "http:" };
        let rest = match location.get(..scheme.len()) {
            Some(start) if start.eq_ignore_ascii_case(scheme) => location.get(scheme.len()..)?,
            _ => location,
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return (rest.len() == location.len() && rest.starts_with('/')).then_some(rest);
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let default = if self.tls { 443 } else { 80 };
        let same = match authority.get(..self.host.len()) {
            Some(host) if host.eq_ignore_ascii_case(&self.host) => match &authority[self.host.len()..] {
                "" | ":" => self.port == default,
                port => port.strip_prefix(':').and_then(|port| port.parse().ok()) == Some(self.port),
            },
            _ => false,
        };
        same.then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::RouteConfig;

    fn local(upstream: &str, stripped: &str, location: &str) -> Option<String> {
        let target = Target::parse(&RouteConfig::new(upstream, "x")).unwrap();
        Local::new(&target, stripped).local(location)
    }

    #[test]
    fn an_address_of_the_upstream_becomes_a_local_one() {
        for (upstream, stripped, location, expected) in [
            ("https://up.example", "", "https://up.example/a?b#c", "/a?b#c"),
            ("https://up.example", "", "HTTPS://UP.example:443", "/"),
            ("https://up.example", "", "//up.example/a", "/a"),
            ("https://up.example", "", "https://up.example?q", "/?q"),
            ("https://up.example/v2", "", "https://up.example/v2/a", "/a"),
            ("https://up.example/v2", "/api", "https://up.example/v2/a", "/api/a"),
            ("https://up.example/v2", "/api", "/v2", "/api"),
            ("https://up.example:8443", "/api", "https://up.example:8443/a", "/api/a"),
        ] {
            assert_eq!(local(upstream, stripped, location).as_deref(), Some(expected), "{location}");
        }
    }

    #[test]
    fn everything_else_passes_as_it_came() {
        for location in [
            "https://other.example/v2/a",
            "http://up.example/v2/a",
            "https://up.example.evil.example/v2/a",
            "https://up.example:8443/v2/a",
            "https://up.example@evil.example/v2/a",
            "https://up.example/v2a",
            "https://up.example/other",
            "https://up.example/v2//evil.example",
            "https://up.example/v2/\\evil.example",
            "//evil.example/v2/a",
            "https:/v2/a",
            "a/b",
            "?q",
            "",
        ] {
            assert_eq!(local("https://up.example/v2", "", location), None, "{location}");
        }
    }
}

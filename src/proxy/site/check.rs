//! What of the configuration can be judged by itself: numbers, names and origins.

use crate::{invalid::Invalid, proxy::config::ProxyConfig};

/// Checks `[proxy]`.
pub(super) fn limits(proxy: &ProxyConfig) -> Result<(), Invalid> {
    // What is read at once.
    if proxy.max_header_bytes < 8192 {
        return Err(Invalid::new("max_header_bytes", "is less than 8192"));
    }
    if proxy.max_header_bytes > 1024 * 1024 {
        return Err(Invalid::new("max_header_bytes", "is more than 1048576"));
    }
    if proxy.max_connections == 0 {
        return Err(Invalid::new("max_connections", "is 0, so that nobody could connect"));
    }
    if proxy.workers > 256 {
        return Err(Invalid::new("workers", "is more than 256"));
    }
    for (key, span) in [("header_timeout", proxy.header_timeout), ("idle_timeout", proxy.idle_timeout)] {
        if span.0.is_zero() {
            return Err(Invalid::new(key, "is 0, so that every connection would be closed at once"));
        }
    }
    for name in &proxy.allowed_hosts {
        host(name).map_err(|_| {
            Invalid::new("allowed_hosts", "holds something that is not the name of a host")
                .hint("write names without a scheme and without a port")
        })?;
    }
    // RFC 6454 §6.2: what a browser sends has no path, not even a slash.
    let is_origin = |origin: &String| {
        url::Url::parse(origin)
            .is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == *origin)
    };
    if !proxy.allowed_origins.iter().all(is_origin) {
        return Err(Invalid::new("allowed_origins", "holds something that is not an origin as browsers send it")
            .hint("write a scheme and a host, and a port if it is not the usual one, such as \"https://app.example\""));
    }
    Ok(())
}

/// Checks the name of a host.
pub(super) fn host(host: &str) -> Result<&str, Invalid> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    let name = !host.is_empty() && host.bytes().all(plain) && (host.starts_with('[') || !host.contains(':'));
    name.then_some(host).ok_or_else(|| {
        Invalid::new("host", "is not the name of a host").hint("write it without a scheme and without a port")
    })
}

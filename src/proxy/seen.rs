//! Which of the fields that the road of a request asks for are there.

use http::{HeaderMap, HeaderName};

/// Found in one pass over the names. Most requests have few fields and hardly one of these, and each question to a header map
/// costs a hash: together they were a tenth of what a request costs outside the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) connection: bool,
    pub(super) content_length: bool,
    pub(super) expect: bool,
    pub(super) te: bool,
    pub(super) upgrade: bool,
    pub(super) via: bool,
    /// One of the hop-by-hop set ([`Seen::is_of_hop`]).
    pub(super) of_hop: bool,
}

impl Seen {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), Self::and)
    }

    fn and(mut self, name: &HeaderName) -> Self {
        let name = name.as_str();
        // Most names begin otherwise.
        if !matches!(name.as_bytes().first(), Some(b'c' | b'e' | b'k' | b'p' | b't' | b'u' | b'v')) {
            return self;
        }
        match name {
            "connection" => self.connection = true,
            "content-length" => self.content_length = true,
            "expect" => self.expect = true,
            "te" => self.te = true,
            "upgrade" => self.upgrade = true,
            "via" => self.via = true,
            _ => {}
        }
        self.of_hop |= Self::is_of_hop(name);
        self
    }

    /// What concerns one connection, in a message of either direction (RFC 9110 §7.6.1), `Connection` itself apart.
    pub(super) fn is_of_hop(name: &str) -> bool {
        matches!(
            name,
            "keep-alive"
                | "proxy-connection"
                | "proxy-authorization"
                | "proxy-authenticate"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        )
    }
}

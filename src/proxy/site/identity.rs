//! What this instance calls itself towards upstreams.

use http::{HeaderValue, Version};

/// Its `Via` (RFC 9110 §7.6.3): a name that no other instance has, because a request that passes two sidecars on its way is no
/// loop.
#[derive(Debug)]
pub(in crate::proxy) struct Identity {
    pub(in crate::proxy) pseudonym: Box<str>,
    via_http_1_0: HeaderValue,
    via: HeaderValue,
    via_http_2: HeaderValue,
}

impl Identity {
    pub(super) fn random() -> Self {
        let mut bytes = [0; 6];
        // Without randomness there is no TLS either; a name that is not unique only makes loops look like loops.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let pseudonym = format!("attache-{hex}");
        let via = |version: &str| {
            HeaderValue::try_from(format!("{version} {pseudonym}")).expect("hex digits are visible ASCII")
        };
        Self { via_http_1_0: via("1.0"), via: via("1.1"), via_http_2: via("2"), pseudonym: pseudonym.into() }
    }

    /// The `Via` of a request that came by this version of HTTP.
    pub(in crate::proxy) fn via(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.via_http_2,
            Version::HTTP_10 => &self.via_http_1_0,
            _ => &self.via,
        }
    }
}

//! Which programs are measured, in which form, and on which way from the caller to the upstream.

use crate::site::GRPC;

/// Which program, and in which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Attache(Variant),
    Nginx,
    NginxLogged,
    /// With buffers for large bodies.
    NginxLarge,
    /// With none for answers.
    NginxUnbuffered,
    Haproxy,
    /// With buffers for large bodies.
    HaproxyLarge,
    Envoy,
    Relay,
    Direct,
}

/// attaché's configurations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    pub routes: usize,
    /// How many of them are asked for; with one, the usual one.
    pub asked: usize,
    pub credentials: usize,
    /// A token that has to be refreshed about every second.
    pub short: bool,
    /// Traced: a span of so many requests in a hundred.
    pub traces: Option<u8>,
}

impl Variant {
    pub const PLAIN: Self = Self { routes: 1, asked: 1, credentials: 1, short: false, traces: None };
}

impl Kind {
    pub fn name(self) -> String {
        match self {
            Self::Attache(Variant::PLAIN) => "attaché".into(),
            Self::Attache(Variant { short: true, .. }) => "attaché, refreshing".into(),
            Self::Attache(Variant { traces: Some(share), .. }) => format!("attaché, {share} % traced"),
            Self::Attache(Variant { routes, asked, credentials, .. }) => {
                let more =
                    if credentials > 1 { format!(", {credentials} credentials") } else { String::new() };
                format!("attaché, {asked} of {routes} routes{more}")
            }
            Self::Nginx => "nginx".into(),
            Self::NginxLogged => "nginx, access log".into(),
            Self::NginxLarge => "nginx, large buffers".into(),
            Self::NginxUnbuffered => "nginx, unbuffered".into(),
            Self::Haproxy => "HAProxy".into(),
            Self::HaproxyLarge => "HAProxy, large buffers".into(),
            Self::Envoy => "Envoy".into(),
            Self::Relay => "raw relay".into(),
            Self::Direct => "direct".into(),
        }
    }

    /// The name of its files, without their ending.
    pub fn file_name(self) -> String {
        let safe = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        self.name().chars().map(safe).collect()
    }

    /// Of how many routes how many are asked for instead of the usual one.
    pub fn more_routes(self) -> Option<(usize, usize)> {
        match self {
            Self::Attache(Variant { routes, asked, .. }) if asked > 1 => Some((routes - 1, asked)),
            _ => None,
        }
    }

    /// Whether it listens for requests that are to take a way.
    pub fn takes(self, way: Way) -> bool {
        match self {
            // On one port, by the path.
            Self::Attache(_) => true,
            Self::Relay | Self::Direct => way == Way::Plain,
            // nginx speaks HTTP/2 to upstreams for gRPC only.
            Self::Nginx | Self::NginxLogged | Self::NginxLarge | Self::NginxUnbuffered => {
                matches!(way, Way::Plain | Way::Tls | Way::Grpc)
            }
            Self::Haproxy | Self::HaproxyLarge | Self::Envoy => true,
        }
    }

    /// Only where callers say nothing of traces does a share of requests mean anything.
    pub fn chooses_what_is_traced(self) -> bool {
        matches!(self, Self::Attache(Variant { traces: Some(_), .. }))
    }
}

/// From the caller to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// HTTP/1.1 on both sides.
    Plain,
    /// HTTP/1.1 to an upstream with TLS.
    Tls,
    /// HTTP/1.1 from the caller, HTTP/2 inside TLS to the upstream.
    Tls2,
    /// HTTP/1.1 from the caller, HTTP/2 without TLS to the upstream.
    H2c,
    /// HTTP/2 without TLS on both sides.
    Grpc,
}

impl Way {
    pub const ALL: [Self; 5] = [Self::Plain, Self::Tls, Self::Tls2, Self::H2c, Self::Grpc];

    /// How the peers' configurations call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Tls2 => "tls2",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
        }
    }

    /// The first segment of the path, by which attaché knows the way; the peers have a port for each.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "v1",
            Self::Tls => "tls",
            Self::Tls2 => "tls2",
            Self::H2c => "h2c",
            Self::Grpc => GRPC.0,
        }
    }
}

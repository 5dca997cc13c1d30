//! Where attaché listens: TCP and Unix sockets, for callers and for the admin port.
//!
//! 1. [`Listen`] is a `listen` key that has been read: an address and a port, or `unix:` and a path.
//! 2. [`UnixConfig`] is what else a Unix socket needs; [`UnixRules`] is that, checked.
//! 3. `socket` binds it, unless a supervisor has done so ([`inherited`](crate::inherited)). A file that a dead process
//!    left behind is replaced; one on which somebody listens is not.
//!    A TCP `port` may be shared by two processes while one takes over from the other.
//! 4. `stream` is a connection of either kind.

mod port;
mod socket;
mod stream;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(crate) use self::socket::Kind;
pub use self::{
    socket::{Listener, Socket, SocketFile},
    stream::{Detached, Stream},
};
use crate::invalid::Invalid;

/// What stands in front of the path of a Unix socket.
const UNIX: &str = "unix:";

/// `sun_path` holds 108 bytes, the last of which is zero (unix(7)).
const MAX_PATH: usize = 107;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An address and a port; port 0 is a new one every time.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Reads a `listen` key. Names are not looked up, except for `localhost`, which is 127.0.0.1.
    pub fn parse(listen: &str) -> Result<Self, Invalid> {
        if let Some(path) = listen.strip_prefix(UNIX) {
            return unix(path).map(Self::Unix);
        }
        if let Some(port) = listen.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        listen.parse().map(Self::Tcp).map_err(|_| {
            Invalid::new("listen", "expected an IP address and a port, or `unix:` and a path").hint(
                "write `127.0.0.1:7080`, `[::1]:7080` or `unix:/run/attache/proxy.sock`; names are not looked up",
            )
        })
    }

    /// The address, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path, if it is a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether each mention of it is another socket: port 0.
    pub fn is_always_new(&self) -> bool {
        self.tcp().is_some_and(|address| address.port() == 0)
    }

    /// Whether two of them cannot both be bound.
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let ips = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
                one.port() == other.port() && one.port() != 0 && ips
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

fn unix(path: &str) -> Result<PathBuf, Invalid> {
    let invalid = |message| Invalid::new("listen", message);
    // An abstract socket has no file, so no mode: everybody in the network namespace could connect.
    if path.starts_with('@') {
        return Err(invalid("is an abstract socket, which no file mode protects")
            .hint("write `unix:/run/attache/proxy.sock`"));
    }
    let is_plain = path.starts_with('/') && !path.ends_with('/') && !path.bytes().any(|byte| byte < b' ');
    if !is_plain || path.contains("//") || path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(invalid("is not the whole path of a socket").hint("write `unix:/run/attache/proxy.sock`"));
    }
    if path.len() > MAX_PATH {
        return Err(invalid("has a path of more than 107 bytes, which no Unix socket can have"));
    }
    Ok(path.into())
}

/// What else a Unix socket needs: a section `unix` beside a `listen`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UnixConfig {
    /// The mode of the socket's file, in octal: who may connect needs to be able to write.
    pub mode: String,
    /// User ids that may connect; with an empty list everybody whom the mode lets in.
    pub allowed_uids: Vec<u32>,
}

impl Default for UnixConfig {
    fn default() -> Self {
        Self { mode: "0660".into(), allowed_uids: Vec::new() }
    }
}

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixRules {
    mode: u32,
    allowed_uids: Box<[u32]>,
}

impl UnixRules {
    /// Checks what was written.
    pub fn new(config: &UnixConfig) -> Result<Self, Invalid> {
        let digits = config.mode.strip_prefix("0o").unwrap_or(&config.mode);
        let is_octal =
            (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
        let mode = mode.ok_or_else(|| {
            Invalid::new("mode", "is not the mode of a file").hint("write it in octal, such as `\"0660\"`")
        })?;
        // Nobody at all could connect, not even attaché's own user.
        if mode & 0o222 == 0 {
            return Err(
                Invalid::new("mode", "lets nobody connect").hint("connecting needs the right to write")
            );
        }
        Ok(Self { mode, allowed_uids: config.allowed_uids.as_slice().into() })
    }

    /// The mode of the socket's file.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// Whether a peer may connect. One that the kernel knows nothing of comes by TCP, and is not asked here.
    pub fn allow(&self, uid: Option<u32>) -> bool {
        self.allowed_uids.is_empty() || uid.is_none_or(|uid| self.allowed_uids.contains(&uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_when_the_kernel_says_so() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:1", false),
        ] {
            let (one, other) = (Listen::parse(one).unwrap(), Listen::parse(other).unwrap());
            assert_eq!(one.collides_with(&other), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_listen_key_is_an_address_or_a_whole_path_and_is_shown_as_it_was_written() {
        for listen in ["127.0.0.1:7080", "[::1]:7080", "0.0.0.0:0", "unix:/run/attache/proxy.sock"] {
            assert_eq!(Listen::parse(listen).unwrap().to_string(), listen);
        }
        assert_eq!(Listen::parse("localhost:80"), Listen::parse("127.0.0.1:80"));
        let long = format!("unix:/{}", "x".repeat(107));
        for listen in [
            "",
            "7080",
            "host.example:1",
            "127.0.0.1:99999",
            "unix:",
            "unix:a",
            "unix:/",
            "unix:/a/",
            "unix:@a",
            "unix:/a/../b",
            "unix:/a/./b",
            "unix://a",
            "unix:/a\0b",
            "unix:/a\nb",
            &long,
        ] {
            assert!(Listen::parse(listen).is_err(), "{listen:?}");
        }
        assert!(Listen::parse(&long[..long.len() - 1]).is_ok());
    }

    /// Where the kernel has such a choice.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn callers_on_this_machine_are_not_paced() {
        let rules = UnixRules::new(&UnixConfig::default()).unwrap();
        let socket = Socket::bind(&Listen::parse("127.0.0.1:0").unwrap(), &rules, false).unwrap();
        let Listen::Tcp(address) = socket.local().unwrap() else { panic!("a TCP port") };
        let _caller = std::net::TcpStream::connect(address).unwrap();
        let Stream::Tcp(stream) = socket.listener().unwrap().accept().await.unwrap() else {
            panic!("by TCP")
        };
        assert_eq!(rustix::net::sockopt::tcp_congestion(&stream).unwrap(), "reno");
    }

    #[test]
    fn a_mode_is_octal_and_lets_somebody_in() {
        let rules = |mode: &str| UnixRules::new(&UnixConfig { mode: mode.into(), allowed_uids: vec![] });
        for (mode, expected) in [("0660", 0o660), ("600", 0o600), ("0o666", 0o666), ("0777", 0o777)] {
            assert_eq!(rules(mode).unwrap().mode(), expected);
        }
        for mode in ["", "0", "rw", "0888", "+660", "6600", "1777", "0444", "00660", "-600", "0x66"] {
            assert!(rules(mode).is_err(), "{mode:?}");
        }
    }

    #[test]
    fn a_peer_is_allowed_by_its_number() {
        let rules = |uids: &[u32]| {
            UnixRules::new(&UnixConfig { allowed_uids: uids.to_vec(), ..UnixConfig::default() }).unwrap()
        };
        assert!(rules(&[]).allow(Some(7)) && rules(&[6, 7]).allow(Some(7)) && rules(&[6]).allow(None));
        assert!(!rules(&[6]).allow(Some(7)) && !rules(&[6]).allow(Some(0)));
    }
}

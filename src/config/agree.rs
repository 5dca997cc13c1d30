//! What sections must agree on: no part sees more than its own.

use std::net::SocketAddr;

use super::{Config, check::nearest};
use crate::invalid::Invalid;

impl Config {
    /// Checks listeners against each other, credentials against the routes that name them, and the log's filter.
    pub fn check(&self) -> Result<(), Invalid> {
        self.log.check().map_err(|mistake| mistake.under("log"))?;
        self.check_listeners()?;
        self.check_credentials()
    }

    fn check_listeners(&self) -> Result<(), Invalid> {
        let own = self.routes.iter().filter_map(|(name, route)| {
            route.listen.as_ref().map(|listen| (format!("routes.{name}.listen"), listen))
        });
        let all = [
            ("proxy.listen".to_owned(), &self.proxy.listen),
            ("admin.listen".to_owned(), &self.admin.listen),
        ];
        let mut known: Vec<(String, SocketAddr)> = Vec::new();
        for (key, listen) in all.into_iter().chain(own) {
            let address = address(listen).map_err(|mistake| mistake.under(&key))?;
            for (other, taken) in &known {
                // Several routes may share a listener; the admin port is always by itself.
                let shared = *taken == address && ![&key, other].contains(&&"admin.listen".to_owned());
                if !shared && overlap(*taken, address) {
                    let message = format!("this is the listener of `{other}` already");
                    return Err(Invalid::new(key, message).hint("give it another port"));
                }
            }
            known.push((key, address));
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), Invalid> {
        let names = || self.credentials.keys().map(String::as_str);
        for (route, config) in &self.routes {
            if !self.credentials.contains_key(&config.credential) {
                let mistake =
                    Invalid::new(format!("routes.{route}.credential"), "no such credential is defined");
                return Err(match nearest(&config.credential, names()) {
                    Some(near) => mistake.hint(format!("did you mean `{near}`?")),
                    None => mistake.hint("add a section `[credentials.NAME]` with that name"),
                });
            }
        }
        Ok(())
    }
}

fn address(listen: &str) -> Result<SocketAddr, Invalid> {
    let numeric = listen.replacen("localhost:", "127.0.0.1:", 1);
    numeric.parse().map_err(|_| {
        Invalid::new("", "expected an IP address and a port")
            .hint("write `127.0.0.1:7080` or `[::1]:7080`; names are not looked up")
    })
}

/// Whether two sockets cannot both be bound. Port 0 is a new one every time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let ips = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && ips
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_overlap_when_the_kernel_says_so() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(overlap(one.parse().unwrap(), other.parse().unwrap()), expected, "{one} {other}");
        }
    }
}

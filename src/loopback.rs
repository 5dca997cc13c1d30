//! Connections that never leave the machine.

use std::{net::IpAddr, os::fd::AsFd};

/// Has the kernel send at once what a connection to or from such an address is given, whatever the machine does otherwise. BBR, which
/// is the default of some, would hold back the last segment of an answer with a timer, to spare a network that is not there: of 64 KiB
/// that timer was a quarter of the work (`benches/README.md`, "What was tried"). Reno does nothing as long as nothing is lost, and is
/// in every kernel. Where it may not be chosen (`tcp_allowed_congestion_control`, tcp(7)), and on other systems, all is as it was.
///
/// To be said before a socket connects: what has begun to pace goes on with it. What a listening socket has, its connections have.
#[cfg(target_os = "linux")]
pub(crate) fn do_not_pace(socket: &impl AsFd, address: IpAddr) {
    if address.to_canonical().is_loopback() {
        let _ = rustix::net::sockopt::set_tcp_congestion(socket, "reno");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn do_not_pace(_: &impl AsFd, _: IpAddr) {}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::TcpListener;

    use rustix::net::sockopt::tcp_congestion;

    use super::*;

    #[test]
    fn only_what_stays_on_this_machine_is_not_paced() {
        let congestion = |address: &str| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            do_not_pace(&socket, address.parse().unwrap());
            tcp_congestion(&socket).unwrap()
        };
        let usual = tcp_congestion(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        for address in ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert_eq!(congestion(address), usual, "{address}");
        }
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(congestion(address), "reno", "{address}");
        }
    }
}

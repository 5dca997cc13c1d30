//! `attache run` under a supervisor, as systemd is one: it asks to be told (`Type=notify`, watchdog), and hands over ports
//! that it has bound (socket activation).

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::attache;

struct Supervised {
    child: Child,
    socket: UnixDatagram,
    _folder: TempDir,
}

impl Supervised {
    fn start(watchdog: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        // A test that waits in vain must end.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.path().join("attache.toml");
        let text = format!(
            "[proxy]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [credentials.a]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://{nobody}/token\"\n\
             client_id = \"a\"\nclient_auth = \"none\"\n\
             [routes.a]\nupstream = \"http://{nobody}\"\ncredential = \"a\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = attache(&["run", "--config", config.to_str().unwrap()])
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .env("WATCHDOG_USEC", watchdog)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket, _folder: folder }
    }

    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_supervisor_hears_that_it_is_ready_then_signs_of_life_then_that_it_stops() {
    let mut process = Supervised::start("20000");
    assert_eq!(process.told(), "READY=1");
    assert_eq!((process.told(), process.told()), ("WATCHDOG=1".into(), "WATCHDOG=1".into()));
    let status = Command::new("kill").args(["-TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    while process.told() != "STOPPING=1" {}
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let mut process = Supervised::start("0");
    assert_eq!(process.told(), "READY=1");
    let status = Command::new("kill").args(["-TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(process.told(), "STOPPING=1");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_that_was_handed_over_is_used_and_connections_of_before_the_start_are_answered() {
    let folder = TempDir::new().unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    // Connected and written before there is anybody to answer.
    let mut early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    early.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let config = folder.path().join("attache.toml");
    let text = format!(
        "[proxy]\nlisten = \"{address}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [credentials.a]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://127.0.0.1:9/token\"\n\
         client_id = \"a\"\nclient_auth = \"none\"\n\
         [routes.a]\npath = \"/a\"\nupstream = \"http://127.0.0.1:9\"\ncredential = \"a\"\n"
    );
    std::fs::write(&config, text).unwrap();
    // The shell moves the port to the descriptor that the convention wants, and becomes attaché.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" run --config \"$1\"";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_attache"), config.to_str().unwrap()])
        .stdin(OwnedFd::from(proxy.try_clone().unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    let _ = child.kill();
    let _ = child.wait();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no_route"), "{answer}");
}

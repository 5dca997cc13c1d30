//! `attache run` under a supervisor that asked to be told, as systemd does for `Type=notify` with a watchdog.

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
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

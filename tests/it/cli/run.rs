//! `attache run`, as an operator meets it. The provider is down, which must not matter.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{attache, text};

pub struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    before: Vec<Value>,
}

fn config(more: &str) -> (TempDir, std::path::PathBuf) {
    // Bound and dropped: nobody listens there.
    let idp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    let text = format!(
        "[log]\nformat = \"json\"\n[proxy]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [credentials.orders]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://{idp}/token\"\n\
         client_id = \"a\"\nclient_auth = \"none\"\n\
         [routes.orders]\nupstream = \"http://{idp}\"\ncredential = \"orders\"\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

#[expect(clippy::zombie_processes, reason = "a test that fails before `listening` ends the whole run anyway")]
pub fn start_with(file: &std::path::Path) -> Process {
    let mut child =
        attache(&["run", "--config", file.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut before = Vec::new();
    loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["message"] == "listening" {
            let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
            let (proxy, admin) = (address("proxy"), address("admin"));
            return Process { child, lines, proxy, admin, before };
        }
        before.push(line);
    }
}

fn start(more: &str) -> Process {
    // Read once, and gone then: a configuration that cannot be read any more changes nothing.
    let (_folder, file) = config(more);
    start_with(&file)
}

impl Process {
    pub fn get(&self, address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Reads the log until a line holds `part`.
    pub fn wait_for(&mut self, part: &str) -> String {
        loop {
            let line = self.lines.next().unwrap().unwrap();
            if line.contains(part) {
                return line;
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let status =
            std::process::Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_starts_with_the_provider_down_and_tells_so() {
    let process = start("");
    assert!(process.get(process.admin, "/livez").starts_with("HTTP/1.1 200"));
    assert!(process.get(process.admin, "/readyz").starts_with("HTTP/1.1 503"));
    let status = process.get(process.admin, "/status");
    assert!(
        status.contains("\"name\":\"orders\"") && status.contains("\"missing\":[\"orders\"]"),
        "{status}"
    );
    let answer = process.get(process.proxy, "/");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("token_unavailable"), "{answer}");

    let probe = |path: &str| {
        let output =
            attache(&["probe", "--timeout", "1m", "--url", &format!("http://{}{path}", process.admin)])
                .output()
                .unwrap();
        (output.status.code(), text(&output))
    };
    assert_eq!(probe("/healthz").0, Some(0));
    let (code, (_, message)) = probe("/readyz");
    assert!(code == Some(1) && message.contains("503") && message.contains("orders"), "{message}");
    let status = format!("http://{}/status", process.admin);
    let (top, _) = text(&attache(&["top", "--once", "--url", &status]).output().unwrap());
    assert!(
        top.contains("not ready") && top.contains("\norders ") && top.contains("client_credentials"),
        "{top}"
    );
    let url = format!("http://{}/readyz", process.admin);
    let output = attache(&["wait", "--timeout", "300ms", "--url", &url]).output().unwrap();
    assert!(output.status.code() == Some(1) && text(&output).1.contains("not ready after 300ms"));
}

#[test]
fn sigterm_and_sigint_end_it_with_exit_code_0() {
    for signal in ["-TERM", "-INT"] {
        let mut process = start("");
        process.signal(signal);
        process.wait_for("ended");
        assert_eq!(process.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn while_it_drains_it_is_alive_but_not_ready_and_a_second_signal_ends_it_at_once() {
    let mut process = start("[shutdown]\ndrain_delay = \"1h\"\n");
    process.signal("-TERM");
    process.wait_for("SIGTERM");
    while !process.get(process.admin, "/readyz").contains("\"draining\":true") {}
    assert!(process.get(process.admin, "/livez").starts_with("HTTP/1.1 200"));
    let since = tokio::time::Instant::now();
    process.signal("-TERM");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    // `tests/e2e/suites/lifecycle.py` measures it; here it must only be less than any wait that is configured.
    assert!(since.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_key_that_weakens_a_promise_is_logged_and_shown_as_a_metric() {
    let process = start("unsafe_plaintext = true\n");
    let key = "routes.orders.unsafe_plaintext";
    assert!(
        process.before.iter().any(|line| line["level"] == "WARN" && line["key"] == key),
        "{:?}",
        process.before
    );
    assert!(process.get(process.admin, "/metrics").contains(key));
}

#[test]
fn the_password_grant_is_told_as_legacy_at_every_start() {
    let (folder, file) = config("");
    let password = folder.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let grant = format!(
        "type = \"password\"\nusername = \"robot\"\npassword = {{ file = \"{}\" }}",
        password.display()
    );
    let text = std::fs::read_to_string(&file).unwrap().replace("type = \"client_credentials\"", &grant);
    std::fs::write(&file, text).unwrap();
    let process = start_with(&file);
    let told = |line: &&Value| line["level"] == "WARN" && line["credential"] == "orders";
    let told: Vec<_> = process.before.iter().filter(told).collect();
    assert!(told.len() == 1 && told[0].to_string().contains("legacy"), "{:?}", process.before);
}

#[test]
fn a_port_that_is_taken_is_named_with_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_folder, file) = config("");
    for variable in ["ATTACHE__PROXY__LISTEN", "ATTACHE__ADMIN__LISTEN"] {
        let output =
            attache(&["run", "-c", file.to_str().unwrap()]).env(variable, &address).output().unwrap();
        let (_, message) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains(&format!("cannot listen on `{address}`")) && message.contains("hint: "),
            "{message}"
        );
    }
}

#[test]
fn check_says_ok_and_what_there_is() {
    let (_folder, file) = config("");
    let output = attache(&["check", "-c", file.to_str().unwrap()]).output().unwrap();
    let (out, message) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(out.starts_with("ok\n") && out.contains("orders: client_credentials"), "{out}");
}

//! `attache demo`, as a newcomer meets it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use super::{attache, text};
use crate::support::{Caller, get};

/// Parts of a signed token begin like this (`{"` in Base64url), and nothing else that the demo shows does.
fn shows_a_token(text: &str) -> bool {
    text.contains("eyJ")
}

#[test]
fn once_shows_the_request_before_and_after_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = attache(&["demo", "--once"]).env("TMPDIR", folder.path()).output().unwrap();
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let (before, after) = out.split_once("The upstream receives").unwrap();
    assert!(
        before.contains("GET /orders?page=1 HTTP/1.1") && !before.to_lowercase().contains("authorization"),
        "{before}"
    );
    assert!(after.contains("authorization: Bearer <") && after.contains("\"jti\":\"token 1\""), "{after}");
    assert!(after.contains("200"), "{after}");
    assert!(!shows_a_token(&out) && !shows_a_token(&err), "{out}{err}");
    assert_eq!(err, "", "a success has nothing to complain about");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A demo that runs; killed when the test ends before it does.
struct Demo {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    shown: String,
}

fn demo_command(folder: &std::path::Path) -> Command {
    let mut command = attache(&["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.env("TMPDIR", folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Demo {
    fn start(folder: &std::path::Path) -> Self {
        let mut child = demo_command(folder).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, shown: String::new() }
    }

    fn line_with(&mut self, part: &str) -> String {
        loop {
            let line =
                self.lines.next().unwrap_or_else(|| panic!("no `{part}` in:\n{}", self.shown)).unwrap();
            self.shown.push_str(&line);
            self.shown.push('\n');
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Interrupts it as Ctrl-C does; what it said, and how it ended.
    fn interrupt(self) -> (String, Option<i32>) {
        self.end_by(rustix::process::Signal::INT)
    }

    fn end_by(mut self, signal: rustix::process::Signal) -> (String, Option<i32>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        for line in self.lines.by_ref() {
            self.shown.push_str(&line.unwrap());
        }
        self.child.stderr.take().unwrap().read_to_string(&mut self.shown).unwrap();
        let code = self.child.wait().unwrap().code();
        (std::mem::take(&mut self.shown), code)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line with a URL.
fn address(line: &str) -> SocketAddr {
    line.split_once("http://").unwrap().1.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn a_token_is_refreshed_while_requests_flow() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path());
    let proxy = address(&demo.line_with("curl http://"));
    // Its configuration is the one it runs with.
    let printed = demo.shown.clone();
    let secret = printed.lines().find(|line| line.contains("client_secret")).unwrap();
    let path = secret.split('"').nth(1).unwrap();
    let secret = fs::read_to_string(path).unwrap();
    demo.line_with("-> 200, with token 1");

    let mut caller = Caller::connect(proxy);
    caller.send("GET /mine HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer eyJtaW5l\r\nConnection: close\r\n\r\n");
    let answer = caller.answer();
    assert_eq!(answer.status, 200);
    let received: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(received["token"]["verified"], true, "the caller's own token is replaced");
    assert!(!shows_a_token(&answer.text()) && !answer.text().contains(&secret));

    demo.line_with("issues token 2");
    let refreshed = demo.line_with("with token 2");
    assert!(refreshed.contains("-> 200"), "{refreshed}");
    let (shown, code) = demo.interrupt();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("-> 5") && !shown.contains("-> 4"), "{shown}");
    assert!(!shows_a_token(&shown) && !shown.contains(&secret), "{shown}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_ends_when_its_terminal_is_closed_or_nobody_reads_it_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path());
    demo.line_with("-> 200, with token 1");
    let (shown, code) = demo.end_by(rustix::process::Signal::HUP);
    assert_eq!(code, Some(0), "{shown}");

    let mut child = demo_command(folder.path()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("attaché demo"), "{first}");
    // Its standard output is closed now.
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_has_the_log_of_a_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path());
    demo.line_with("-> 200, with token 1");
    let (shown, _) = demo.interrupt();
    assert!(shown.contains("INFO attache::"), "{shown}");
    assert!(!shows_a_token(&shown), "{shown}");
}

#[test]
fn a_port_that_is_taken_is_said_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (flag, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let output = attache(&["demo", flag, &address, other, "127.0.0.1:0"])
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        let (out, err) = text(&output);
        assert_eq!((output.status.code(), out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(&address) && err.contains("hint:") && err.contains(flag), "{err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_answers_as_the_sidecar_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path());
    let proxy = address(&demo.line_with("curl http://"));
    let admin = address(&demo.line_with("/status"));
    demo.line_with("-> 200, with token 1");
    assert_eq!(get(admin, "/readyz").status, 200);
    let status = get(admin, "/status").text();
    assert!(status.contains("demo") && !shows_a_token(&status), "{status}");
    let mut caller = Caller::connect(proxy);
    caller.send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(caller.answer().reason().as_deref(), Some("foreign_host"));
}

//! `attache run` on Unix sockets: probes find it, a supervisor may hand a socket over, a reload changes who may connect, and
//! nothing is left behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            fs::MetadataExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;

use super::attache;

/// A process that a test must not leave behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration on two Unix sockets in this folder, with a provider that is not there.
fn config(folder: &Path, more: &str) -> String {
    let folder = folder.display();
    format!(
        "[proxy]\nlisten = \"unix:{folder}/proxy.sock\"\n[admin]\nlisten = \"unix:{folder}/admin.sock\"\n\
         [credentials.a]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://127.0.0.1:9/token\"\n\
         client_id = \"a\"\nclient_auth = \"none\"\n\
         [routes.a]\npath = \"/a\"\nupstream = \"http://127.0.0.1:9\"\ncredential = \"a\"\n{more}"
    )
}

fn run(file: &Path) -> Running {
    let command = attache(&["run", "--config", file.to_str().unwrap()]).stderr(Stdio::null()).spawn();
    Running(command.unwrap())
}

/// One health check, by the program itself; it waits for an answer of this sort.
fn wait_for(file: &Path, path: &str, success: bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "no such answer to {path}");
        let output =
            attache(&["probe", "--config", file.to_str().unwrap(), "--path", path]).output().unwrap();
        let text =
            String::from_utf8_lossy(if success { &output.stdout } else { &output.stderr }).into_owned();
        if output.status.success() == success && !text.contains("does not answer") {
            return text;
        }
    }
}

fn call(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn signal(process: &Running, name: &str) {
    let status = Command::new("kill").args([name, &process.0.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn probes_speak_to_a_unix_socket_and_both_files_are_gone_after_sigterm() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    fs::write(&file, config(folder.path(), "")).unwrap();
    let mut process = run(&file);
    assert!(wait_for(&file, "/livez", true).starts_with("200 "));
    assert!(wait_for(&file, "/readyz", false).contains("answered 503"));
    assert!(call(&folder.path().join("proxy.sock")).contains("no_route"));
    signal(&process, "-TERM");
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    for name in ["proxy.sock", "admin.sock"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn after_a_kill_the_next_start_replaces_both_files() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    fs::write(&file, config(folder.path(), "")).unwrap();
    let mut process = run(&file);
    wait_for(&file, "/livez", true);
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    assert!(folder.path().join("proxy.sock").exists() && folder.path().join("admin.sock").exists());
    let _process = run(&file);
    wait_for(&file, "/livez", true);
    assert!(call(&folder.path().join("proxy.sock")).contains("no_route"));
}

#[test]
fn a_user_who_is_not_allowed_cannot_ask_the_admin_socket() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    let other = fs::metadata(folder.path()).unwrap().uid() + 1;
    fs::write(&file, config(folder.path(), &format!("[admin.unix]\nallowed_uids = [{other}]\n"))).unwrap();
    let _process = run(&file);
    assert!(wait_for(&file, "/livez", false).contains("answered 403 this user may not connect"));
}

#[test]
fn a_unix_socket_that_was_handed_over_is_used_and_its_file_stays() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("proxy.sock");
    let handed = UnixListener::bind(&socket).unwrap();
    // Connected and written before there is anybody to answer.
    let mut early = UnixStream::connect(&socket).unwrap();
    early.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    early.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let file = folder.path().join("attache.toml");
    fs::write(&file, config(folder.path(), "")).unwrap();
    // The shell moves the socket to the descriptor that the convention wants, and becomes attaché.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" run --config \"$1\"";
    let process = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_attache"), file.to_str().unwrap()])
        .stdin(OwnedFd::from(handed))
        .stderr(Stdio::null())
        .spawn();
    let mut process = Running(process.unwrap());
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no_route"), "{answer}");
    signal(&process, "-TERM");
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    assert!(socket.exists(), "it is the supervisor's");
    assert!(!folder.path().join("admin.sock").exists());
}

#[test]
fn a_reload_changes_who_may_connect_but_not_the_mode_or_the_path() {
    let folder = TempDir::new().unwrap();
    let (file, socket) = (folder.path().join("attache.toml"), folder.path().join("proxy.sock"));
    let own = fs::metadata(folder.path()).unwrap().uid();
    fs::write(&file, config(folder.path(), "")).unwrap();
    let process = run(&file);
    wait_for(&file, "/livez", true);
    let change = |text: &str| {
        let next = folder.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &file).unwrap();
        signal(&process, "-HUP");
    };
    assert!(call(&socket).contains("no_route"));
    change(&config(folder.path(), &format!("[proxy.unix]\nallowed_uids = [{}]\n", own + 1)));
    while !call(&socket).contains("peer_refused") {}
    // What cannot be changed while it runs changes nothing.
    let status = || {
        let mut stream = UnixStream::connect(folder.path().join("admin.sock")).unwrap();
        stream.write_all(b"GET /status HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (more, part) in
        [("[proxy.unix]\nmode = \"0600\"\n", "mode of a Unix socket"), ("", "listeners cannot")]
    {
        let text = config(folder.path(), more);
        change(&if more.is_empty() { text.replace("proxy.sock", "other.sock") } else { text });
        while !status().contains(part) {}
        assert!(call(&socket).contains("peer_refused"), "{part}");
    }
}

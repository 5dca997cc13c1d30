//! Callers on Unix sockets: the same road, and who may set foot on it.

use std::{
    fs,
    io::Read as _,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use attache::{app, config};
use http::Request;
use tempfile::TempDir;

use crate::support::{
    Caller, FakeServer, Http2Caller, Sidecar, credential, echo, get, http2_request, provider,
};

/// A route with a Unix socket of its own, beside one for everybody.
fn settings(provider: &FakeServer, upstream: &FakeServer, socket: &Path, lines: &str) -> String {
    let url = upstream.url();
    format!(
        "{}[routes.main]\nupstream = \"{url}\"\ncredential = \"main\"\n\
         [routes.own]\nupstream = \"{url}\"\ncredential = \"main\"\nlisten = \"unix:{}\"\n{lines}\n",
        credential(provider),
        socket.display()
    )
}

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("attache.sock");
    (folder, socket)
}

fn own_uid(folder: &TempDir) -> u32 {
    fs::metadata(folder.path()).unwrap().uid()
}

/// Why a configuration with this socket cannot be bound, if it cannot.
fn why_not(provider: &FakeServer, upstream: &FakeServer, socket: &Path) -> Option<String> {
    let file = socket.with_file_name("attache.toml");
    fs::write(&file, settings(provider, upstream, socket, "")).unwrap();
    let listen = |name: &str| (format!("ATTACHE__{name}__LISTEN"), "127.0.0.1:0".to_owned());
    let config = config::load(Some(&file), [listen("PROXY"), listen("ADMIN")]).unwrap();
    app::build(&config).err().map(|error| error.to_string())
}

#[test]
fn requests_on_a_unix_socket_are_served_like_any_other() {
    let (provider, upstream) = (provider(), echo());
    let (_folder, socket) = folder();
    let _sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, ""));
    let mut caller = Caller::connect_unix(&socket);
    for number in 0..3 {
        caller.send(format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(caller.answer().text().starts_with(&format!("GET /{number} ")));
    }
    // Quiet for so long that it is taken out of hyper; it comes back with its next byte.
    assert!(caller.is_silent_for(Duration::from_millis(3500)));
    caller.send("POST /last HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
    caller.send("x".repeat(100_000));
    assert_eq!(caller.answer_to("POST").status, 200);
    caller.finish();
    assert!(caller.is_closed());
    let last = upstream.received().pop().unwrap();
    assert_eq!((last.body.len(), last.fields("authorization")), (100_000, vec!["Bearer token-1"]));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn http_2_is_spoken_on_a_unix_socket_too() {
    let (provider, upstream) = (provider(), echo());
    let (folder, socket) = folder();
    let sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, ""));
    let mut caller = Http2Caller::connect_unix(&socket);
    let exchanges: Vec<_> =
        (0..20).map(|number| caller.begin(http2_request("GET", &format!("/{number}")), None)).collect();
    for (number, exchange) in exchanges.into_iter().enumerate() {
        assert!(caller.rest(exchange).text().starts_with(&format!("GET /{number} ")));
    }
    let answer = caller.ask(http2_request("POST", "/last"), Some(&vec![b'x'; 100_000]));
    assert_eq!((answer.status, answer.reset), (200, None));
    let last = upstream.received().pop().unwrap();
    assert_eq!((last.body.len(), last.fields("authorization")), (100_000, vec!["Bearer token-1"]));
    let foreign = Request::get("http://evil.example/").body(()).unwrap();
    assert_eq!(caller.ask(foreign, None).reason().as_deref(), Some("foreign_host"));
    drop((caller, sidecar));

    let lines = format!("unix = {{ allowed_uids = [{}] }}", own_uid(&folder) + 1);
    let _sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, &lines));
    let ended = Http2Caller::connect_unix(&socket).ended().unwrap_err();
    assert!(ended.is_go_away() && ended.to_string().contains("peer_refused"), "{ended}");
}

#[test]
fn the_host_guard_holds_on_a_unix_socket_too() {
    let (provider, upstream) = (provider(), echo());
    let (_folder, socket) = folder();
    let _sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, ""));
    for (name, fields, reason) in [
        ("a foreign name", "Host: evil.example\r\n", "foreign_host"),
        ("another address", "Host: 10.0.0.1\r\n", "foreign_host"),
        ("an empty host", "Host:\r\n", "malformed_host"),
        ("a page", "Host: localhost\r\nOrigin: http://localhost\r\n", "foreign_origin"),
    ] {
        let mut caller = Caller::connect_unix(&socket);
        caller.send(format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(caller.answer().reason().as_deref(), Some(reason), "{name}");
        assert!(caller.is_closed(), "{name}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn the_file_has_its_mode_is_a_socket_and_goes_at_the_end() {
    let (provider, upstream) = (provider(), echo());
    for (lines, mode) in
        [("", 0o660), ("unix = { mode = \"0600\" }", 0o600), ("unix = { mode = \"0666\" }", 0o666)]
    {
        let (_folder, socket) = folder();
        let sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, lines));
        let file = fs::symlink_metadata(&socket).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode, "{lines}");
        drop(sidecar);
        assert!(!socket.exists(), "{lines}");
    }
}

#[test]
fn a_user_who_is_not_allowed_is_told_so_counted_and_never_read() {
    let (provider, upstream) = (provider(), echo());
    let (folder, socket) = folder();
    let own = own_uid(&folder);
    let lines = format!("unix = {{ allowed_uids = [{}] }}", own + 1);
    let sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, &lines));
    for _ in 0..3 {
        let mut caller = Caller::connect_unix(&socket);
        caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = caller.answer();
        assert_eq!((answer.status, answer.reason().as_deref()), (403, Some("peer_refused")));
        caller.finish();
        assert!(caller.is_closed());
    }
    assert!(upstream.received().is_empty());
    assert_eq!(sidecar.metric("attache_own_answers_total{reason=\"peer_refused\",route=\"(none)\"}"), 3.0);
    assert_eq!(get(sidecar.proxy, "/").status, 200, "by TCP nobody is asked");
    drop(sidecar);

    let lines = format!("unix = {{ allowed_uids = [{}, {own}] }}", own + 1);
    let _sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, &lines));
    let mut caller = Caller::connect_unix(&socket);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
}

#[test]
fn what_proxy_says_of_unix_sockets_holds_for_routes_that_say_nothing() {
    let (provider, upstream) = (provider(), echo());
    let (folder, socket) = folder();
    let general = format!("[proxy.unix]\nmode = \"0606\"\nallowed_uids = [{}]\n", own_uid(&folder) + 1);
    let _sidecar = Sidecar::run(&format!("{general}{}", settings(&provider, &upstream, &socket, "")));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o606);
    let mut caller = Caller::connect_unix(&socket);
    assert_eq!(caller.answer().reason().as_deref(), Some("peer_refused"));
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced() {
    let (provider, upstream) = (provider(), echo());
    let (_folder, socket) = folder();
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let _sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, ""));
    let mut caller = Caller::connect_unix(&socket);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
}

#[test]
fn a_socket_on_which_somebody_listens_is_left_alone() {
    let (provider, upstream) = (provider(), echo());
    let (_folder, socket) = folder();
    let other = UnixListener::bind(&socket).unwrap();
    let why = why_not(&provider, &upstream, &socket).unwrap();
    assert!(why.contains(&format!("unix:{}", socket.display())) && why.contains("in use"), "{why}");
    drop(other.accept().unwrap());
    UnixStream::connect(&socket).unwrap();
    drop(other.accept().unwrap());
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let (provider, upstream) = (provider(), echo());
    for name in ["a file", "a folder", "a link to a dead socket"] {
        let (folder, socket) = folder();
        match name {
            "a file" => fs::write(&socket, "precious").unwrap(),
            "a folder" => fs::create_dir(&socket).unwrap(),
            _ => {
                let dead = folder.path().join("dead");
                drop(UnixListener::bind(&dead).unwrap());
                std::os::unix::fs::symlink(dead, &socket).unwrap();
            }
        }
        let why = why_not(&provider, &upstream, &socket).unwrap();
        assert!(why.contains("no socket"), "{name}: {why}");
        assert!(fs::symlink_metadata(&socket).is_ok(), "{name}");
    }
}

#[test]
fn a_file_that_somebody_put_in_the_place_of_the_socket_stays_at_the_end() {
    let (provider, upstream) = (provider(), echo());
    let (_folder, socket) = folder();
    let sidecar = Sidecar::run(&settings(&provider, &upstream, &socket, ""));
    fs::remove_file(&socket).unwrap();
    let other = UnixListener::bind(&socket).unwrap();
    drop(sidecar);
    UnixStream::connect(&socket).unwrap();
    let (mut stream, _) = other.accept().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let (provider, upstream) = (provider(), echo());
    let (folder, _) = folder();
    fs::create_dir(folder.path().join("run")).unwrap();
    let socket = folder.path().join("run/missing/attache.sock");
    let file = folder.path().join("run/attache.toml");
    fs::write(&file, settings(&provider, &upstream, &socket, "")).unwrap();
    let listen = |name: &str| (format!("ATTACHE__{name}__LISTEN"), "127.0.0.1:0".to_owned());
    let config = config::load(Some(&file), [listen("PROXY"), listen("ADMIN")]).unwrap();
    let why = app::build(&config).err().unwrap().to_string();
    assert!(why.contains("missing/attache.sock") && why.contains("No such file"), "{why}");
}

//! A configuration that changes while attaché runs, through the real program.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::run::{Process, start_with};

/// Answers every request with its name and the request's `Authorization`, as JSON that is also a token answer.
pub struct Server {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

pub fn server(name: &'static str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut length, mut authorization, mut line) = (0, String::new(), String::new());
                    while reader.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
                        let (name, value) = line.split_once(": ").unwrap_or_default();
                        match name.to_ascii_lowercase().as_str() {
                            "content-length" => length = value.trim().parse().unwrap(),
                            "authorization" => authorization = value.trim().to_owned(),
                            _ => {}
                        }
                        line.clear();
                    }
                    if line.is_empty() {
                        return;
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                    let answer = format!(
                        "{{\"access_token\":\"{name}-{number}\",\"token_type\":\"Bearer\",\"expires_in\":3600,\
                         \"saw\":\"{authorization}\"}}"
                    );
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                    if write!(stream, "{head} {}\r\n\r\n{answer}", answer.len()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { address, requests }
}

fn config(idp: &Server, more_idp: &Server, upstream: &Server, more: &str) -> String {
    format!(
        "[log]\nformat = \"json\"\n[proxy]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [credentials.a]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://{}/t\"\nclient_id = \"a\"\n\
         client_auth = \"none\"\n\
         [credentials.b]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://{}/t\"\nclient_id = \"b\"\n\
         client_auth = \"none\"\n\
         [routes.main]\nupstream = \"http://{}\"\n{more}",
        idp.address, more_idp.address, upstream.address
    )
}

struct Setting {
    one: Server,
    other: Server,
    old: Server,
    new: Server,
    file: PathBuf,
    process: Process,
    _folder: tempfile::TempDir,
}

/// Runs with `a` from `one` to the upstream `old`.
fn setting() -> Setting {
    setting_with("")
}

/// The same with more of a configuration.
fn setting_with(more: &str) -> Setting {
    let (one, other, old, new) = (server("one"), server("other"), server("old"), server("new"));
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    let more = format!("credential = \"a\"\n{}", more.replace("DIR", folder.path().to_str().unwrap()));
    fs::write(&file, config(&one, &other, &old, &more)).unwrap();
    let process = start_with(&file);
    Setting { one, other, old, new, file, process, _folder: folder }
}

impl Setting {
    fn change(&self, text: &str) {
        // Never half written: what the watcher sees of a change is all of it.
        let next = self.file.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &self.file).unwrap();
        self.process.signal("-HUP");
    }

    fn call(&self) -> String {
        self.process.get(self.process.proxy, "/")
    }
}

#[test]
fn a_change_is_in_force_without_a_restart_and_unchanged_credentials_keep_their_tokens() {
    let mut setting = setting();
    let answer = setting.call();
    assert!(answer.contains("\"old-1\"") && answer.contains("\"saw\":\"Bearer one-1\""), "{answer}");
    let text = config(
        &setting.one,
        &setting.old,
        &setting.new,
        "credential = \"a\"\n[routes.more]\npath = \"/more\"\n",
    );
    let text = format!("{text}upstream = \"http://{}\"\ncredential = \"b\"\n", setting.new.address);
    setting.change(&text);
    setting.process.wait_for("the configuration was reloaded");
    let answer = setting.call();
    assert!(answer.contains("\"new-1\"") && answer.contains("\"saw\":\"Bearer one-1\""), "{answer}");
    assert_eq!(setting.one.requests.load(Ordering::SeqCst), 1, "`a` has not changed");
    // `b` has: its new provider is asked, its route is there.
    let answer = setting.process.get(setting.process.proxy, "/more/x");
    assert!(answer.contains("\"saw\":\"Bearer old-"), "{answer}");
    let status = setting.process.get(setting.process.admin, "/status");
    assert!(status.contains("\"more\"") && status.contains("\"rejected\":null"), "{status}");
    assert!(setting.process.get(setting.process.admin, "/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_change_that_cannot_be_used_leaves_the_old_configuration_in_force() {
    let mut setting = setting();
    setting.call();
    let good = config(&setting.one, &setting.other, &setting.old, "credential = \"a\"\n");
    for (bad, part) in [
        ("credentials = \"hunter2", "is not TOML"),
        (&good.replace("credential = \"a\"", "credential = \"c\""), "no such credential"),
        (&good.replace("upstream = \"http://127", "upstream = \"ftp://127"), "neither https nor http"),
        (
            &good.replace("[proxy]\nlisten = \"127.0.0.1:0\"", "[proxy]\nlisten = \"127.0.0.2:0\""),
            "restart attaché",
        ),
        (&good.replace("[credentials.b]", "[credentials.c]\nrequired = true\n[credentials.d]"), "missing"),
    ] {
        setting.change(bad);
        let line = setting.process.wait_for(part);
        assert!(line.contains("the old one stays") && !line.contains("hunter2"), "{line}");
        assert!(setting.call().contains("\"old-"), "{bad}");
    }
    let status = setting.process.get(setting.process.admin, "/status");
    assert!(!status.contains("\"rejected\":null") && !status.contains("hunter2"), "{status}");
    let metrics = setting.process.get(setting.process.admin, "/metrics");
    // The watcher may have seen a change before the signal made it look again.
    let rejected = metrics
        .lines()
        .find_map(|line| line.strip_prefix("attache_config_reloads_total{outcome=\"rejected\"} "));
    assert!(rejected.unwrap().parse::<u32>().unwrap() >= 5, "{metrics}");
    assert!(setting.process.get(setting.process.admin, "/readyz").starts_with("HTTP/1.1 200"));
    setting.change(&good);
    setting.process.wait_for("the configuration was reloaded");
    assert_eq!(setting.one.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn what_needs_a_restart_says_so_and_the_rest_is_applied() {
    let mut setting = setting();
    setting.call();
    let text = config(&setting.one, &setting.other, &setting.new, "credential = \"a\"\n");
    setting.change(&text.replace("workers = 1", "workers = 2"));
    let line = setting.process.wait_for("needs a restart");
    assert!(line.contains("\"section\":\"proxy\""), "{line}");
    assert!(setting.call().contains("\"new-"));
}

#[test]
fn a_credential_that_is_taken_away_is_not_asked_for_any_more() {
    let mut setting = setting();
    setting.call();
    let good = config(&setting.one, &setting.other, &setting.old, "credential = \"a\"\n");
    let from = good.find("[credentials.b]").unwrap();
    let to = good.find("[routes.main]").unwrap();
    setting.change(&format!("{}{}", &good[..from], &good[to..]));
    setting.process.wait_for("the configuration was reloaded");
    let metrics = setting.process.get(setting.process.admin, "/metrics");
    assert!(!metrics.contains("attache_credential_ready{credential=\"b\"}"), "{metrics}");
    assert!(!setting.process.get(setting.process.admin, "/status").contains("\"name\":\"b\""));
}

#[test]
fn what_a_refused_change_would_have_added_is_not_shown_as_if_it_were_there() {
    let mut setting = setting();
    setting.call();
    let good = config(&setting.one, &setting.other, &setting.old, "credential = \"a\"\n");
    let moved = good.replace("[proxy]\nlisten = \"127.0.0.1:0\"", "[proxy]\nlisten = \"127.0.0.2:0\"");
    let key = setting.file.with_file_name("z");
    fs::write(&key, "key").unwrap();
    let token = format!("{{ file = \"{}\", unsafe_world_readable = true }}", key.display());
    setting.change(&format!("{moved}[credentials.z]\ntype = \"file\"\ntoken = {token}\n"));
    setting.process.wait_for("the old one stays");
    let metrics = setting.process.get(setting.process.admin, "/metrics");
    assert!(metrics.contains("attache_credential_ready{credential=\"b\"}"), "{metrics}");
    assert!(
        !metrics.contains("attache_credential_ready{credential=\"z\"}"),
        "AttacheNoToken would page: {metrics}"
    );
}

#[test]
fn a_key_that_weakens_a_promise_is_shown_as_long_as_it_is_in_use() {
    let mut setting = setting_with("unsafe_plaintext = true\n");
    let series = "attache_unsafe_settings{key=\"routes.main.unsafe_plaintext\"} 1";
    assert!(setting.process.get(setting.process.admin, "/metrics").contains(series));
    setting.change(&config(&setting.one, &setting.other, &setting.old, "credential = \"a\"\n"));
    setting.process.wait_for("the configuration was reloaded");
    let metrics = setting.process.get(setting.process.admin, "/metrics");
    assert!(!metrics.contains("unsafe_plaintext"), "{metrics}");
}

#[test]
fn a_route_with_another_name_joins_a_listener_that_is_there() {
    let route = |name: &str, socket: &str, upstream: &Server| {
        let listen = format!("listen = \"unix:DIR/{socket}\"\npath = \"/{name}\"");
        format!("[routes.{name}]\n{listen}\nupstream = \"http://{}\"\ncredential = \"a\"\n", upstream.address)
    };
    let upstream = server("routes");
    let both = format!("{}{}", route("c", "one", &upstream), route("d", "other", &upstream));
    let mut setting = setting_with(&both);
    // It comes first by its name, and so does its listener.
    let text = format!("credential = \"a\"\n{}{both}", route("b", "other", &upstream));
    let text = text.replace("DIR", setting.file.parent().unwrap().to_str().unwrap());
    setting.change(&config(&setting.one, &setting.other, &setting.old, &text));
    setting.process.wait_for("the configuration was reloaded");
    let mut stream = UnixStream::connect(setting.file.with_file_name("other")).unwrap();
    write!(stream, "GET /b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"routes-1\""), "{answer}");
}

/// Sends requests on one connection until told to stop; how many were answered by an upstream.
fn callers_work(address: SocketAddr, stop: &AtomicBool, all: &AtomicUsize) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        stream.write_all(b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        let (mut length, mut line) = (0, String::new());
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n", "after {answered}");
        while line != "\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "dropped after {answered}");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        answered += 1;
        all.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn f20_twenty_reloads_under_load_fail_no_request_and_drop_no_connection() {
    let mut setting = setting();
    setting.call();
    let (address, stop) = (setting.process.proxy, Arc::new(AtomicBool::new(false)));
    let answered = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || callers_work(address, &stop, &answered))
        })
        .collect();
    for round in 0..20 {
        // Each reload happens while requests flow, however fast it is.
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + 8
            && !callers.iter().any(|caller| caller.is_finished())
        {
            thread::yield_now();
        }
        let upstream = if round % 2 == 0 { &setting.new } else { &setting.old };
        // `b` changes each time, `a` never.
        let more = format!("credential = \"a\"\nresponse_timeout = \"{}s\"\n", 30 + round);
        let text = config(&setting.one, &setting.other, upstream, &more)
            .replace("client_id = \"b\"", &format!("client_id = \"b{round}\""));
        if round % 4 == 3 {
            setting.change(&format!("{text}no_such_key = {round}\n"));
            setting.process.wait_for("the old one stays");
        } else {
            setting.change(&text);
            setting.process.wait_for("the configuration was reloaded");
        }
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.join().unwrap();
    }
    assert_eq!(setting.one.requests.load(Ordering::SeqCst), 1, "token requests only for what has changed");
    assert!(setting.new.requests.load(Ordering::SeqCst) > 0);
}

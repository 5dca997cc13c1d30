//! `attache run` with a log that nobody reads, or that cannot be written: no request waits for it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;

use super::attache;

fn config(log: &str) -> (TempDir, std::path::PathBuf) {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    let text = format!(
        "{log}[proxy]\nlisten = \"127.0.0.1:0\"\naccess_log = \"all\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [credentials.a]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://{nobody}/token\"\n\
         client_id = \"a\"\nclient_auth = \"none\"\n\
         [routes.a]\npath = \"/a\"\nupstream = \"http://{nobody}\"\ncredential = \"a\"\n"
    );
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

/// Sends so many requests on one connection, each of which attaché answers itself and logs.
fn requests(proxy: SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    // A test that waits in vain must end.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = [0; 4096];
    for _ in 0..count {
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"}\n") {
            let length = stream.read(&mut answer).unwrap();
            assert!(length > 0, "the connection was closed");
            seen.extend_from_slice(&answer[..length]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 404"));
    }
}

#[test]
fn a_log_that_nobody_reads_holds_no_request_up() {
    let (_folder, file) = config("[log]\nformat = \"json\"\n");
    let mut child = attache(&["run", "-c", file.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let proxy = loop {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        if event["message"] == "listening" {
            break event["proxy"].as_str().unwrap().parse().unwrap();
        }
    };
    // More than a pipe and the queue hold, and nobody reads.
    requests(proxy, 6000);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_full_disk_under_the_log_ends_nothing() {
    let (_folder, file) = config("");
    let ports = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    // The log cannot tell its ports, so they are free ones of a moment ago; whoever takes them meanwhile is retried.
    for _ in 0..10 {
        let (proxy, admin) = (ports(), ports());
        let mut child = attache(&["run", "-c", file.to_str().unwrap()])
            .env("ATTACHE__PROXY__LISTEN", proxy.to_string())
            .env("ATTACHE__ADMIN__LISTEN", admin.to_string())
            .stderr(full.try_clone().unwrap())
            .spawn()
            .unwrap();
        let url = format!("http://{admin}/livez");
        let up = attache(&["wait", "--timeout", "10s", "--url", &url]).status().unwrap().success();
        if !up && child.try_wait().unwrap().is_some() {
            continue;
        }
        requests(proxy, 100);
        let metrics = {
            let mut stream = TcpStream::connect(admin).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        child.kill().unwrap();
        child.wait().unwrap();
        let lost = metrics.lines().find(|line| line.starts_with("attache_log_lines_lost_total")).unwrap();
        assert_ne!(lost, "attache_log_lines_lost_total 0");
        return;
    }
    panic!("no free ports in ten tries");
}

//! Tests of the command line, through the real program.

mod demo;
mod logs;
mod online;
mod reload;
mod run;
mod sockets;
mod supervised;
mod unread_log;
mod wrong_config;

use std::process::{Command, Output};

/// The program, with an environment that holds nothing of ours.
pub fn attache(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
    command.args(arguments).env_clear();
    command
}

fn text(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn wrong_usage_ends_with_exit_code_2() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["check", "--no-such-flag"],
        &["probe", "--timeout", "soon"],
        &["probe", "--path", "readyz"],
    ] {
        let output = attache(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn help_tells_the_environment_and_the_exit_codes() {
    let output = attache(&["--help"]).output().unwrap();
    let (out, _) = text(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(out.contains("ATTACHE__") && out.contains("78"), "{out}");
    let (version, _) = text(&attache(&["-V"]).output().unwrap());
    assert_eq!(version.trim(), concat!("attache ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = attache(&["schema"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn top_ends_when_nobody_reads_it_any_more() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = attache(&["top", "--url", &format!("http://{address}/status")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_schema_is_json_and_knows_the_keys_of_every_type() {
    let output = attache(&["schema"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$defs"]["CredentialConfig"]["unevaluatedProperties"], false);
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_probe_of_nobody_fails_with_exit_code_1() {
    // Bound and dropped: nobody else listens there now.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = attache(&["probe", "--url", &format!("http://{address}/healthz")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).1.contains("does not answer"));
    let output = attache(&["wait", "--timeout", "1ms", "--url", &format!("http://{address}/readyz")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).1.contains("not ready after 1ms"));
}

#[test]
fn who_asks_an_admin_port_that_cannot_be_is_told_as_run_would() {
    for command in ["run", "probe", "wait", "top"] {
        let output = attache(&[command])
            .env("ATTACHE__ADMIN__LISTEN", "nowhere")
            .env("ATTACHE__ROUTES__A", "{ upstream = \"http://127.0.0.1:1\", credential = \"none\" }")
            .output()
            .unwrap();
        let (_, message) = text(&output);
        assert_eq!(output.status.code(), Some(78), "{command}: {message}");
        assert!(message.contains("`admin.listen`") && message.contains("hint:"), "{command}: {message}");
    }
}

#[test]
fn a_wait_for_one_process_ends_with_its_answer_or_its_end() {
    let sidecar = crate::support::Sidecar::run(
        "[routes.a]\nupstream = \"http://127.0.0.1:1\"\ncredential = \"none\"\n",
    );
    let url = format!("http://{}/readyz", sidecar.admin);
    let wait = |pid: u32, timeout: &str| {
        let pid = pid.to_string();
        let output = attache(&["wait", "--url", &url, "--timeout", timeout, "--pid", &pid]).output().unwrap();
        (output.status.code(), text(&output).1)
    };
    // The sidecar is in this process.
    assert_eq!(wait(std::process::id(), "60s"), (Some(0), String::new()));
    let (code, message) = wait(std::os::unix::process::parent_id(), "2s");
    assert!(code == Some(1) && message.contains("another process"), "{message}");
    let mut ended = attache(&["-V"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    // Not waited for: it is there, but as nothing that can answer.
    let (code, message) = wait(ended.id(), "60s");
    assert!(code == Some(1) && message.contains("has ended"), "{message}");
    ended.wait().unwrap();
    let (code, message) = wait(ended.id(), "60s");
    assert!(code == Some(1) && message.contains("has ended"), "{message}");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let (script, _) = text(&attache(&["completions", "bash"]).output().unwrap());
    let (page, _) = text(&attache(&["man"]).output().unwrap());
    let folder = tempfile::TempDir::new().unwrap();
    let output = attache(&["man", "--out", folder.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    for command in ["check", "schema", "probe", "wait"] {
        assert!(script.contains(command) && page.contains(command), "{command}");
        let page = std::fs::read_to_string(folder.path().join(format!("attache-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{page}");
    }
}

//! The floors of the house: imports go down only, some crates have one home, files stay small, and the environment is
//! read in three places. The sources are read as text; comments and what stands behind `#[cfg(test)]` do not count.

use std::{fs, path::Path};

/// The floor of each module, and the modules on the same floor that it may use.
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("main", 5, &[]),
    ("cli", 4, &["app", "config", "reload"]),
    ("app", 4, &["config", "reload"]),
    ("reload", 4, &["app", "config"]),
    ("config", 4, &[]),
    ("proxy", 2, &[]),
    ("admin", 2, &[]),
    ("token", 1, &[]),
    ("telemetry", 0, &FLOOR_0),
    ("secret", 0, &FLOOR_0),
    ("tls", 0, &FLOOR_0),
    ("guard", 0, &FLOOR_0),
    ("readiness", 0, &FLOOR_0),
    ("shutdown", 0, &FLOOR_0),
    ("supervisor", 0, &FLOOR_0),
    ("inherited", 0, &FLOOR_0),
    ("listen", 0, &FLOOR_0),
    ("duration", 0, &FLOOR_0),
    ("invalid", 0, &FLOOR_0),
    ("chance", 0, &FLOOR_0),
    ("loopback", 0, &FLOOR_0),
    ("rfc3339", 0, &FLOOR_0),
];

const FLOOR_0: [&str; 14] = [
    "telemetry",
    "secret",
    "tls",
    "guard",
    "readiness",
    "shutdown",
    "supervisor",
    "inherited",
    "listen",
    "duration",
    "invalid",
    "chance",
    "loopback",
    "rfc3339",
];

/// Crates with a home, as the beginning of the paths that may use them.
const HOMES: &[(&str, &[&str])] = &[
    ("figment", &["config/"]),
    ("serde_saphyr", &["config/"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("clap_mangen", &["cli/"]),
    ("hyper", &["telemetry/traces/send.rs", "cli/demo"]),
    ("hyper_util", &["telemetry/traces/send.rs", "cli/demo"]),
    ("h2", &["proxy/"]),
    ("tokio_rustls", &["proxy/", "telemetry/traces/send.rs", "cli/demo"]),
    ("axum", &["admin/", "cli/demo"]),
    ("reqwest", &["token/"]),
    ("listenfd", &["inherited.rs"]),
    ("jsonwebtoken", &["token/", "cli/demo"]),
    ("prometheus", &["telemetry/"]),
    ("tracing_subscriber", &["telemetry/"]),
    ("rustls_native_certs", &["tls/anchors.rs"]),
    ("webpki_roots", &["tls/anchors.rs"]),
];

/// Where the environment of the process may be read. `tls.rs` asks for OpenSSL's two customary variables only.
const ENVIRONMENT: &[&str] = &["secret.rs", "config/", "supervisor.rs", "tls/anchors.rs"];

const MAX_LINES: usize = 500;

/// The lines that count: up to the tests, without comments, with line breaks of `use` trees joined.
fn code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines().take_while(|line| line.trim() != "#[cfg(test)]") {
        let line = line.trim();
        if !line.starts_with("//") {
            code.push_str(line);
            code.push(' ');
        }
    }
    code
}

/// The modules of this crate that the code names: behind `crate::`, in its braces, or behind enough `super::`.
fn modules_used(path: &str, code: &str) -> Vec<String> {
    let file = path.strip_suffix(".rs").unwrap_or(path);
    let depth = match file.strip_suffix("/mod") {
        Some(folder) => folder.matches('/').count() + 1,
        None => file.matches('/').count() + 1,
    };
    let to_root = "super::".repeat(depth);
    let mut used = Vec::new();
    // Only the program names its library from outside.
    let root_of_crate = if path == "main.rs" { "attache::" } else { "crate::" };
    for root in [root_of_crate, to_root.as_str()] {
        for (at, _) in code.match_indices(root) {
            let part_of_a_name = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if !part_of_a_name {
                used.extend(first_names(&code[at + root.len()..]));
            }
        }
    }
    used
}

/// The names in front of a path, or of each path of a tree in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(tree) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&tree[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&tree[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Whether the code names this crate: as the beginning of a path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    }) || code.contains(&format!("use {name};"))
}

/// Everything that is wrong with a source file, `path` being relative to `src/`.
fn offences(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let module = path.split(['/', '.']).next().unwrap_or_default();
    let mut offences = Vec::new();
    if module != "lib" {
        match FLOORS.iter().find(|(name, ..)| *name == module) {
            None => {
                offences.push(format!("{path}: `{module}` has no floor; give it one in tests/it/floors.rs"))
            }
            Some((_, floor, beside)) => {
                for used in modules_used(path, &code) {
                    let Some((_, other, _)) = FLOORS.iter().find(|(name, ..)| *name == used) else {
                        continue;
                    };
                    if used != module && other >= floor && !beside.contains(&used.as_str()) {
                        offences.push(format!(
                            "{path}: `{module}` (floor {floor}) uses `{used}` (floor {other})"
                        ));
                    }
                }
            }
        }
    }
    for (name, homes) in HOMES {
        if names_crate(&code, name) && !homes.iter().any(|home| path.starts_with(home)) {
            offences.push(format!("{path}: `{name}` has its home in {homes:?}"));
        }
    }
    let reads = ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("];
    if reads.iter().any(|read| code.contains(read)) && !ENVIRONMENT.iter().any(|home| path.starts_with(home))
    {
        offences.push(format!("{path}: the environment is read in {ENVIRONMENT:?} only"));
    }
    if !text.starts_with("//!") {
        offences.push(format!("{path}: does not begin with the life of its subject (`//!`)"));
    }
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    if lines > MAX_LINES {
        offences.push(format!("{path}: {lines} lines outside tests, the limit is {MAX_LINES}"));
    }
    offences
}

fn sources(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            sources(&path, &format!("{name}/"), found);
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_source_file_keeps_to_its_floor() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 20);
    let offences: Vec<_> = files.iter().flat_map(|(path, text)| offences(path, text)).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn an_import_that_goes_up_is_found_in_every_spelling() {
    for (path, line) in [
        ("token/manager.rs", "use crate::proxy::Routes;"),
        ("token/source/mod.rs", "use crate::{\n    duration::Span,\n    proxy::{Routes, Server},\n};"),
        ("token/mod.rs", "use super::proxy;"),
        ("token/source/a.rs", "fn f() { super::super::super::proxy::x() }"),
        ("token/a.rs", "use super::super::config::Config;"),
        ("admin/mod.rs", "use crate::proxy::Routes;"),
        ("proxy/mod.rs", "fn f(x: &crate::admin::View) {}"),
        ("proxy/a.rs", "use crate::app::Bound;"),
        ("secret.rs", "use crate::token;"),
        ("config/mod.rs", "use crate::cli::Command;"),
        ("telemetry/logging.rs", "use crate::config::Config;"),
    ] {
        assert_eq!(offences(path, &format!("//! x\n{line}\n")).len(), 1, "{path}: {line}");
    }
}

#[test]
fn what_the_floors_allow_is_no_offence() {
    for (path, line) in [
        (
            "token/source/a.rs",
            "use super::super::clock::Clock;\nuse crate::{secret::Secret, token::Credential};",
        ),
        ("proxy/mod.rs", "use h2::RecvStream;\nuse crate::token::Credential;"),
        ("cli/demo/idp.rs", "use axum::Router;\nuse crate::config::Config;"),
        ("admin/mod.rs", "// like hyper::server\nuse axum::Router;\nuse crate::token::Manager;"),
        ("secret.rs", "fn f() { std::env::var(\"X\"); }"),
        ("token/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::proxy::Routes; }"),
    ] {
        assert_eq!(offences(path, &format!("//! x\n{line}\n")), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn every_other_rule_can_fail() {
    let long = format!("//! x\n{}", "fn f() {}\n".repeat(MAX_LINES));
    for (path, text, part) in [
        ("proxy/a.rs", "//! x\nuse reqwest::Client;\n", "`reqwest`"),
        ("admin/a.rs", "//! x\nuse hyper::body;\n", "`hyper`"),
        ("token/a.rs", "//! x\nfn f() { hyper_util::rt() }\n", "`hyper_util`"),
        ("app.rs", "//! x\nuse figment::Figment;\n", "`figment`"),
        ("proxy/a.rs", "//! x\nfn f() { std::env::var(\"X\"); }\n", "environment"),
        ("proxy/a.rs", "use std::fmt;\n", "begin"),
        ("novelty.rs", "//! x\n", "no floor"),
        ("proxy/a.rs", &long, "501 lines"),
    ] {
        let offences = offences(path, text);
        assert!(offences.len() == 1 && offences[0].contains(part), "{part}: {offences:?}");
    }
}

//! Where the programs are, and which.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::Kind;

/// The release binary; `benches/run` builds it and says where it is.
pub fn attache_binary() -> PathBuf {
    env::var_os("ATTACHE_BIN").map_or_else(|| PathBuf::from("target/release/attache"), PathBuf::from)
}

/// What a program says about its version.
pub fn version(kind: Kind) -> Option<String> {
    let (program, argument) = match kind {
        Kind::Attache(_) => (attache_binary(), "--version"),
        Kind::Nginx => (tool("nginx"), "-v"),
        Kind::Haproxy => (tool("haproxy"), "-v"),
        Kind::Envoy => (envoy(), "--version"),
        _ => return None,
    };
    let said = Command::new(&program).arg(argument).output().ok()?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    // Where it lies is nobody's business.
    Some(line.replace(&program.display().to_string(), &kind.name()))
}

pub fn envoy() -> PathBuf {
    env::var_os("ENVOY_BIN").map_or_else(|| tool("envoy"), PathBuf::from)
}

/// A program by its name, also where an ordinary user's PATH does not look.
pub fn tool(name: &str) -> PathBuf {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    path.split(':')
        .map(|part| Path::new(part).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}

pub fn has(program: &str) -> bool {
    tool(program).exists()
}

pub fn present(kind: Kind) -> bool {
    match kind {
        Kind::Nginx | Kind::NginxLogged | Kind::NginxLarge | Kind::NginxUnbuffered => tool("nginx").exists(),
        Kind::Haproxy | Kind::HaproxyLarge => tool("haproxy").exists(),
        Kind::Envoy => envoy().exists(),
        _ => true,
    }
}

/// A command that starts the same way on every machine: where this one's certificates are is none of the benchmark's business.
pub fn command(program: PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command
}

//! What is measured: attaché, its peers, the relay, and nobody.

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    engine::Engine,
    machine::{self, Cores},
    site::{GRPC, Site},
    usage,
};

/// Which program, and in which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Attache(Variant),
    Nginx,
    NginxLogged,
    /// With buffers for large bodies.
    NginxLarge,
    /// With none for answers.
    NginxUnbuffered,
    Haproxy,
    Envoy,
    Relay,
    Direct,
}

/// attaché's configurations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    pub routes: usize,
    /// How many of them are asked for; with one, the usual one.
    pub asked: usize,
    pub credentials: usize,
    /// A token that has to be refreshed about every second.
    pub short: bool,
    /// Traced: a span of so many requests in a hundred.
    pub traces: Option<u8>,
}

impl Variant {
    pub const PLAIN: Self = Self { routes: 1, asked: 1, credentials: 1, short: false, traces: None };
}

impl Kind {
    pub fn name(self) -> String {
        match self {
            Self::Attache(Variant::PLAIN) => "attaché".into(),
            Self::Attache(Variant { short: true, .. }) => "attaché, refreshing".into(),
            Self::Attache(Variant { traces: Some(share), .. }) => format!("attaché, {share} % traced"),
            Self::Attache(Variant { routes, asked, credentials, .. }) => {
                let more =
                    if credentials > 1 { format!(", {credentials} credentials") } else { String::new() };
                format!("attaché, {asked} of {routes} routes{more}")
            }
            Self::Nginx => "nginx".into(),
            Self::NginxLogged => "nginx, access log".into(),
            Self::NginxLarge => "nginx, large buffers".into(),
            Self::NginxUnbuffered => "nginx, unbuffered".into(),
            Self::Haproxy => "HAProxy".into(),
            Self::Envoy => "Envoy".into(),
            Self::Relay => "raw relay".into(),
            Self::Direct => "direct".into(),
        }
    }
}

impl Kind {
    /// Of how many routes how many are asked for instead of the usual one.
    pub fn more_routes(self) -> Option<(usize, usize)> {
        match self {
            Self::Attache(Variant { routes, asked, .. }) if asked > 1 => Some((routes - 1, asked)),
            _ => None,
        }
    }

    /// Only where callers say nothing of traces does a share of requests mean anything.
    pub fn chooses_what_is_traced(self) -> bool {
        matches!(self, Self::Attache(Variant { traces: Some(_), .. }))
    }
}

/// From the caller to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// HTTP/1.1 on both sides.
    Plain,
    /// HTTP/1.1 to an upstream with TLS.
    Tls,
    /// HTTP/1.1 from the caller, HTTP/2 inside TLS to the upstream.
    Tls2,
    /// HTTP/1.1 from the caller, HTTP/2 without TLS to the upstream.
    H2c,
    /// HTTP/2 without TLS on both sides.
    Grpc,
}

impl Way {
    const ALL: [Self; 5] = [Self::Plain, Self::Tls, Self::Tls2, Self::H2c, Self::Grpc];

    pub fn needs_http2(self) -> bool {
        matches!(self, Self::Tls2 | Self::H2c | Self::Grpc)
    }

    /// The first segment of the path, by which attaché knows the way; the peers have a port for each.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "v1",
            Self::Tls => "tls",
            Self::Tls2 => "tls2",
            Self::H2c => "h2c",
            Self::Grpc => GRPC.0,
        }
    }
}

/// A running target.
pub struct Target {
    pub kind: Kind,
    pub plain: SocketAddr,
    ports: [u16; Way::ALL.len()],
    child: Option<Child>,
}

impl Target {
    /// Starts it and waits until it accepts connections.
    pub fn start(kind: Kind, site: &Site, engine: &mut Engine, cores: Cores, cpu: usize) -> io::Result<Self> {
        let mut target = Self::launch(kind, site, cores, cpu)?;
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(target.plain).is_err() {
            if let Some(status) = target.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return Err(io::Error::other(format!(
                    "{} ended: {status}; see {}",
                    kind.name(),
                    site.directory.display()
                )));
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{} does not listen", kind.name())));
            }
            engine.serve(Duration::from_millis(5))?;
        }
        // The first token, the second process of those that fork.
        engine.serve(Duration::from_millis(500))?;
        Ok(target)
    }

    /// Starts it and returns at once.
    pub fn launch(kind: Kind, site: &Site, cores: Cores, cpu: usize) -> io::Result<Self> {
        let [admin, ways @ ..] = ports::<6>()?;
        let [plain, tls, tls2, h2c, grpc] = ways;
        let name: String = kind
            .name()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        let config = |template: &str, ending: &str, more: &[(&str, &str)]| -> io::Result<PathBuf> {
            let mut text = template.to_owned();
            let port = |port: u16| port.to_string();
            let all = [
                ("directory", site.directory.display().to_string()),
                ("name", name.clone()),
                ("token", site.token.clone()),
                ("plain", port(site.plain.port())),
                ("tls", port(site.tls.port())),
                ("tls2", port(site.tls2.port())),
                ("tokens", port(site.tokens.port())),
                ("port_plain", port(plain)),
                ("port_tls", port(tls)),
                ("port_tls2", port(tls2)),
                ("port_h2c", port(h2c)),
                ("port_grpc", port(grpc)),
                ("port_admin", port(admin)),
            ];
            let more = more.iter().map(|(key, value)| (*key, *value));
            for (key, value) in all.iter().map(|(key, value)| (*key, value.as_str())).chain(more) {
                text = text.replace(&format!("{{{key}}}"), value);
            }
            let path = site.directory.join(format!("{name}.{ending}"));
            fs::write(&path, text)?;
            Ok(path)
        };
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let nginx = |log: &str, buffers: &str| -> io::Result<Command> {
            let path = config(
                include_str!("../peers/nginx.conf"),
                "conf",
                &[("access_log", log), ("buffers", buffers)],
            )?;
            Ok(command(tool("nginx"), &["-e", "stderr", "-c", &path.display().to_string()]))
        };
        let mut command = match kind {
            Kind::Direct => {
                return Ok(Self {
                    kind,
                    plain: site.open,
                    ports: [site.open.port(), 0, 0, 0, 0],
                    child: None,
                });
            }
            Kind::Relay => {
                let itself = env::current_exe()?;
                let (listen, upstream) = (local(plain).to_string(), site.open.to_string());
                command(itself, &["relay", &listen, &upstream])
            }
            Kind::Nginx => nginx("off", "")?,
            Kind::NginxLogged => {
                let log = format!("{}/access.log", site.directory.display());
                nginx(&log, "")?
            }
            Kind::NginxLarge => nginx("off", include_str!("../peers/nginx-large.conf"))?,
            Kind::NginxUnbuffered => nginx("off", include_str!("../peers/nginx-unbuffered.conf"))?,
            Kind::Haproxy => {
                let path = config(include_str!("../peers/haproxy.cfg"), "cfg", &[])?;
                command(tool("haproxy"), &["-db", "-f", &path.display().to_string()])
            }
            Kind::Envoy => {
                let path = config(include_str!("../peers/envoy.yaml"), "yaml", &[])?;
                let path = path.display().to_string();
                let options =
                    ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c", &path];
                command(envoy(), &options)
            }
            Kind::Attache(variant) => {
                let template = attache(variant, site);
                let path = if variant.short { "token/short" } else { "token" };
                let path = config(&template, "toml", &[("token_path", path)])?;
                let path = path.display().to_string();
                let run = ["run", "--config", &path];
                match CALLGRIND.get() {
                    None => command(attache_binary(), &run),
                    Some(profile) => {
                        let profile = format!("--callgrind-out-file={}", profile.display());
                        let mut command = command("valgrind".into(), &["--tool=callgrind", &profile]);
                        command.arg(attache_binary()).args(run);
                        command
                    }
                }
            }
        };
        let log = fs::File::create(site.directory.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = machine::spawn(&mut command, cores, cpu)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", kind.name())))?;
        let ports = match kind {
            Kind::Attache(_) => [plain; Way::ALL.len()],
            Kind::Relay => [plain, 0, 0, 0, 0],
            // nginx speaks HTTP/2 to upstreams for gRPC only.
            Kind::Nginx | Kind::NginxLogged | Kind::NginxLarge | Kind::NginxUnbuffered => {
                [plain, tls, 0, 0, 0]
            }
            _ => ways,
        };
        Ok(Self { kind, plain: local(plain), ports, child: Some(child) })
    }

    /// Where requests go that are to take a way.
    pub fn address(&self, way: Way) -> Option<SocketAddr> {
        let at = Way::ALL.iter().position(|known| *known == way)?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[at]))).filter(|to| to.port() > 0)
    }

    /// Asks it to end, as an orchestrator does, and waits until it has.
    pub fn end(mut self, engine: &mut Engine) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let until = Instant::now() + Duration::from_secs(60);
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other(format!("{} does not end", self.kind.name())));
            }
            engine.serve(Duration::from_millis(5))?;
        }
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        self.child.as_ref().map(|child| usage::family(child.id())).unwrap_or_default()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            for pid in usage::family(child.id()).into_iter().rev() {
                if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = child.wait();
        }
    }
}

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

fn envoy() -> PathBuf {
    env::var_os("ENVOY_BIN").map_or_else(|| tool("envoy"), PathBuf::from)
}

/// A program by its name, also where an ordinary user's PATH does not look.
fn tool(name: &str) -> PathBuf {
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
        Kind::Haproxy => tool("haproxy").exists(),
        Kind::Envoy => envoy().exists(),
        _ => true,
    }
}

fn command(program: PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    // The same start on every machine: where this one's certificates are is none of the benchmark's business.
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command
}

/// Where valgrind, which then runs attaché, leaves its profile.
pub static CALLGRIND: OnceLock<PathBuf> = OnceLock::new();

/// Whether this attaché speaks HTTP/2 to upstreams: an older one is measured without.
pub fn has_http2() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let schema = Command::new(attache_binary()).arg("schema").output();
        schema.is_ok_and(|output| memchr::memmem::find(&output.stdout, b"\"h2c\"").is_some())
    })
}

/// attaché's configuration with the routes and credentials of a variant.
fn attache(variant: Variant, site: &Site) -> String {
    let mut text = include_str!("../peers/attache.toml").to_owned();
    let route = |name: String, path: String, credential: String| {
        format!(
            "[routes.{name}]\npath = \"{path}\"\nupstream = \"http://127.0.0.1:{}\"\ncredential = \"{credential}\"\n",
            site.plain.port()
        )
    };
    let credential = |number: usize| match number % variant.credentials {
        0 => "main".to_owned(),
        other => format!("c{other}"),
    };
    if has_http2() {
        text += &format!(
            "[routes.tls2]\npath = \"/tls2\"\nupstream = \"https://localhost:{}\"\ncredential = \"main\"\n\
             tls = {{ ca_file = \"{}/ca.pem\" }}\n",
            site.tls2.port(),
            site.directory.display()
        );
        for (name, path) in [("h2c", Way::H2c.prefix()), ("grpc", Way::Grpc.prefix())] {
            text += &route(name.into(), format!("/{path}"), "main".into())
                .replace("credential", "protocol = \"h2c\"\ncredential");
        }
    }
    if let Some(share) = variant.traces {
        let (endpoint, ratio) = (site.tokens, f64::from(share) / 100.0);
        text += &format!("[traces]\nendpoint = \"http://{endpoint}\"\nsample_ratio = {ratio:?}\n");
        text += "protocol = \"http/protobuf\"\n";
    }
    // A path prefix, as a service has that may call a part of an API: so that the policy of paths is on.
    text += &route("plain".into(), format!("/{}", Way::Plain.prefix()), "main".into());
    for number in 1..variant.routes {
        text += &route(format!("r{number}"), format!("/r{number}"), credential(number));
    }
    for number in 1..variant.credentials {
        text += &format!(
            "[credentials.c{number}]\ntype = \"client_credentials\"\ntoken_endpoint = \"http://127.0.0.1:{}/token\"\n\
             client_id = \"bench\"\nclient_secret = {{ file = \"{}/secret\" }}\n",
            site.tokens.port(),
            site.directory.display()
        );
    }
    text
}

/// Free ports, all held until the last is found.
fn ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

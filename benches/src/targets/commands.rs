//! How each target is started: its configuration, written from the templates in `peers/`, and its command line.

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    kind::{Kind, Variant, Way},
    ports::Ports,
    programs::{attache_binary, command, envoy, tool},
};
use crate::site::Site;

/// The command that starts a target; of `direct` there is none. With a `profile`, attaché runs under valgrind, which leaves its
/// profile there.
pub fn of(kind: Kind, site: &Site, ports: &Ports, profile: Option<&Path>) -> io::Result<Option<Command>> {
    let writer = Writer { kind, site, ports };
    let nginx = |log: &str, buffers: &str| -> io::Result<Command> {
        let template = include_str!("../../peers/nginx.conf");
        // Started by root, its worker would be somebody who may not look into every folder.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let path =
            writer.write(template, "conf", &[("access_log", log), ("buffers", buffers), ("user", user)])?;
        Ok(command(tool("nginx"), &["-e", "stderr", "-c", &path]))
    };
    let haproxy = |buffers: &str| -> io::Result<Command> {
        let path = writer.write(include_str!("../../peers/haproxy.cfg"), "cfg", &[("buffers", buffers)])?;
        Ok(command(tool("haproxy"), &["-db", "-f", &path]))
    };
    let command = match kind {
        Kind::Direct => return Ok(None),
        Kind::Relay => {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.plain()));
            command(env::current_exe()?, &["relay", &listen.to_string(), &site.open.to_string()])
        }
        Kind::Nginx => nginx("off", "")?,
        Kind::NginxLogged => nginx(&format!("{}/access.log", site.directory.display()), "")?,
        Kind::NginxLarge => nginx("off", include_str!("../../peers/nginx-large.conf"))?,
        Kind::NginxUnbuffered => nginx("off", include_str!("../../peers/nginx-unbuffered.conf"))?,
        Kind::Haproxy => haproxy("")?,
        Kind::HaproxyLarge => haproxy("tune.bufsize 131072\n    tune.pipesize 262144")?,
        Kind::Envoy => {
            let path = writer.write(include_str!("../../peers/envoy.yaml"), "yaml", &[])?;
            let options =
                ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c", &path];
            command(envoy(), &options)
        }
        Kind::Attache(variant) => {
            let token_path = if variant.short { "token/short" } else { "token" };
            let path = writer.write(&attache(variant, site), "toml", &[("token_path", token_path)])?;
            let run = ["run", "--config", &path];
            match profile {
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
    Ok(Some(command))
}

/// Writes configurations.
struct Writer<'a> {
    kind: Kind,
    site: &'a Site,
    ports: &'a Ports,
}

impl Writer<'_> {
    /// A template with what stands in braces replaced.
    fn write(&self, template: &str, ending: &str, more: &[(&str, &str)]) -> io::Result<String> {
        let (site, name) = (self.site, self.kind.file_name());
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
            ("port_admin", port(self.ports.admin)),
        ];
        let more = more.iter().map(|(key, value)| (*key, *value));
        for (key, value) in all.iter().map(|(key, value)| (*key, value.as_str())).chain(more) {
            text = text.replace(&format!("{{{key}}}"), value);
        }
        for (way, port) in Way::ALL.into_iter().zip(self.ports.ways) {
            text = text.replace(&format!("{{port_{}}}", way.word()), &port.to_string());
        }
        let path: PathBuf = site.directory.join(format!("{name}.{ending}"));
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

/// attaché's configuration with the routes and credentials of a variant.
fn attache(variant: Variant, site: &Site) -> String {
    let mut text = include_str!("../../peers/attache.toml").to_owned();
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

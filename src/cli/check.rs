//! `attache check`: everything that can be known about a configuration without the network, and with it if asked.

use clap::Args;

use super::{ConfigArgument, Failure, online, output};
use crate::{
    app,
    config::{Config, Loaded},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Also walk the way to a token of each credential, step by step, and connect to each upstream
    #[arg(long)]
    online: bool,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let Loaded { config, origin, unsafe_keys } = arguments.config.load()?;
    app::check(&config).map_err(|mistake| origin.explain(mistake))?;
    output::line(&summary(&config, &unsafe_keys))?;
    if arguments.online {
        super::block_on(online::walk(&config, &origin))??;
    }
    Ok(())
}

/// A listener as somebody would use it.
fn shown(listen: &str) -> String {
    if listen.starts_with("unix:") { listen.to_owned() } else { format!("http://{listen}") }
}

fn summary(config: &Config, unsafe_keys: &[String]) -> String {
    let mut lines = vec![
        "ok".to_owned(),
        format!("  proxy      {}", shown(&config.proxy.listen)),
        format!("  admin      {}", shown(&config.admin.listen)),
    ];
    for (name, route) in &config.routes {
        let host = route.host.as_deref().unwrap_or_default();
        let listen = route.listen.as_ref().map(|listen| format!(" on {listen}")).unwrap_or_default();
        let (path, upstream, credential) = (&route.path, &route.upstream, &route.credential);
        lines.push(format!("  route      {name}: {host}{path}{listen} -> {upstream} with {credential}"));
    }
    for (name, credential) in &config.credentials {
        let needed = if config.routes.values().any(|route| route.credential == *name) {
            ""
        } else {
            " (no route uses it)"
        };
        lines.push(format!("  credential {name}: {}{needed}", credential.source.name()));
    }
    lines.extend(unsafe_keys.iter().map(|key| format!("  unsafe     {key}")));
    lines.join("\n")
}

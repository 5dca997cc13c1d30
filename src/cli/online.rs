//! What needs the network: a token of each credential, a connection to each upstream. Used by `check --online` and `token`.

use std::time::Duration;

use tokio::time;

use super::{Failure, output};
use crate::{
    config::{Config, Origin},
    proxy::{Reason, Routes},
    readiness::Readiness,
    telemetry::metrics::Metrics,
    token::{Clock, Credential, Current, Environment, LastError, Manager},
};

/// Longer than one attempt may take, discovery and token request together.
const PATIENCE: Duration = Duration::from_secs(15);

fn environment() -> Environment {
    Environment { clock: Clock::default(), readiness: Readiness::new(), metrics: Metrics::new() }
}

/// The first token of the credential, or why the first attempt brought none.
pub(super) async fn first_token(manager: &Manager, credential: &Credential) -> Result<Current, LastError> {
    manager.start();
    let attempt = async {
        loop {
            if let Ok(current) = credential.wait().await {
                return Ok(current);
            }
            let statuses = manager.statuses().into_iter();
            if let Some(error) =
                statuses.filter(|status| status.name == credential.name()).find_map(|s| s.last_error)
            {
                return Err(error);
            }
        }
    };
    let late = || LastError {
        reason: "timeout",
        message: format!("there was no answer within {} seconds", PATIENCE.as_secs()),
        hint: "the provider is slow or overloaded",
    };
    time::timeout(PATIENCE, attempt).await.unwrap_or_else(|_| Err(late()))
}

/// Only this credential, whatever else is in the configuration.
pub(super) fn one_credential(
    config: &Config,
    origin: &Origin,
    name: &str,
) -> Result<(Manager, Credential), Failure> {
    let only = config.credentials.get_key_value(name).map(|(name, config)| (name.clone(), config.clone()));
    let manager = Manager::build(&only.into_iter().collect(), &environment())
        .map_err(|mistake| origin.explain(mistake))?;
    let names = || config.credentials.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let credential = manager.credential(name).ok_or_else(|| {
        Failure::other(format!("no credential `{name}` is defined")).hint(format!("there are: {}", names()))
    })?;
    Ok((manager, credential))
}

/// Walks every credential and every upstream, and tells how each went.
pub(super) async fn walk(config: &Config, origin: &Origin) -> Result<(), Failure> {
    let environment = environment();
    let explain = |mistake| Failure::from(origin.explain(mistake));
    let manager = Manager::build(&config.credentials, &environment).map_err(explain)?;
    let find = |name: &str| manager.credential(name);
    let routes =
        Routes::build(&config.proxy, &config.routes, &find, &environment.metrics).map_err(explain)?;
    let mut failed = 0;
    let mut told = Vec::new();
    for name in config.credentials.keys() {
        // They all run from the first one on.
        let Some(credential) = manager.credential(name) else { continue };
        match first_token(&manager, &credential).await {
            Ok(_) => {
                let statuses = manager.statuses();
                let left =
                    statuses.iter().find(|status| status.name == *name).and_then(|s| s.expires_in_seconds);
                told.push(format!("credential {name}: ok, a token for {} s", left.unwrap_or_default()));
            }
            Err(LastError { reason, message, hint }) => {
                failed += 1;
                told.push(format!("credential {name}: failed ({reason}): {message}\n  hint: {hint}"));
            }
        }
    }
    for reached in routes.reach().await {
        let upstream = reached.upstream;
        match reached.outcome {
            Ok(()) => told.push(format!("upstream {upstream}: ok")),
            Err(reason) => {
                failed += 1;
                let hint = cure(reason).map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                told.push(format!(
                    "upstream {upstream}: failed ({}): {}{hint}",
                    reason.word(),
                    reason.explanation()
                ));
            }
        }
    }
    output::line(&told.join("\n"))?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::other("one of these failed")),
        _ => Err(Failure::other(format!("{failed} of these failed"))),
    }
}

fn cure(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::UpstreamUnresolved => Some("check the host in `upstream`, and DNS"),
        Reason::UpstreamUnreachable => {
            Some("check the port in `upstream`, and whether a firewall stands in between")
        }
        Reason::UpstreamTls => Some(
            "name the authority of the upstream's certificate in `tls.ca_file`, or correct the host name",
        ),
        Reason::UpstreamConnectTimeout => Some("check the network, or raise `connect_timeout`"),
        _ => None,
    }
}

//! What needs the network: the way to a token of each credential, a connection to each upstream. Used by `check --online`,
//! `token` and `whoami`.

use std::time::Duration;

use tokio::time;

use super::{Failure, output};
use crate::{
    config::{Config, Origin},
    proxy::{Reason, Routes},
    readiness::Readiness,
    telemetry::{metrics::Metrics, traces::Tracer},
    token::{self, Clock, Credential, CredentialConfig, Current, Environment, LastError, Manager, Walk},
};

/// Longer than one attempt may take, discovery and token request together.
const PATIENCE: Duration = Duration::from_secs(15);

fn environment() -> Environment {
    Environment {
        clock: Clock::default(),
        readiness: Readiness::new(),
        metrics: Metrics::new(),
        traces: Tracer::default(),
    }
}

/// The first token of the credential, or why the first attempt brought none.
pub(super) async fn first_token(
    config: &CredentialConfig,
    manager: &Manager,
    credential: &Credential,
) -> Result<Current, LastError> {
    token::can_keep(config, Clock::default()).await.map_err(|error| LastError::from(&error))?;
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
        hint: "the provider is slow or overloaded".to_owned(),
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
    for (name, credential) in &config.credentials {
        let walk = token::walk(credential, environment.clock.clone()).await;
        let walk = walk.map_err(|mistake| explain(mistake.under(&format!("credentials.{name}"))))?;
        failed += usize::from(walk.failed().is_some());
        told.push(tell(name, &walk));
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

/// How it went, and each step; the one that failed with its likely cure.
fn tell(name: &str, walk: &Walk) -> String {
    let mut lines = vec![match (walk.failed(), walk.lifetime) {
        (Some((step, trouble)), _) => format!("credential {name}: failed at {step} ({})", trouble.reason),
        (None, Some(lifetime)) => format!("credential {name}: ok, a token for {lifetime} s"),
        (None, None) => format!("credential {name}: ok, a token"),
    }];
    for step in &walk.steps {
        match &step.outcome {
            Ok(found) => lines.push(format!("  ok      {}: {found}", step.name)),
            Err(trouble) => {
                lines.push(format!("  failed  {}: {}", step.name, trouble.message));
                lines.push(format!("    hint: {}", trouble.hint));
            }
        }
    }
    lines.join("\n")
}

fn cure(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::UpstreamUnresolved => Some("check the host in `upstream`, and DNS"),
        Reason::UpstreamUnreachable => {
            Some("check the port in `upstream`, and whether a firewall stands in between")
        }
        Reason::ProxyUnreachable => Some("check `http_proxy`, and whether the proxy is reachable from here"),
        Reason::ProxyAuthentication => Some("check `username` and `password` under `http_proxy_auth`"),
        Reason::ProxyRefused => Some("the proxy's rules or its log say why; it may not reach the upstream"),
        Reason::ProxyInvalid => Some("check the port of `http_proxy`: what answers there is no HTTP proxy"),
        Reason::UpstreamTls => Some(
            "name the authority of the upstream's certificate in `tls.ca_file`, or correct the host name",
        ),
        Reason::UpstreamConnectTimeout => Some("check the network, or raise `connect_timeout`"),
        _ => None,
    }
}

//! `attache run`: the sidecar.

use std::io::ErrorKind;

use clap::Args;

use super::{ConfigArgument, Failure, signals};
use crate::{
    app::{self, BuildError},
    config::{self, Loaded},
    proxy::BindError,
    reload::Watcher,
    shutdown,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let file = arguments.config.config.clone();
    let (watcher, loaded) = Watcher::load(file, config::environment()?)?;
    let Loaded { config, origin, unsafe_keys } = loaded;
    // Kept until the end: dropping it writes the last lines.
    let log = config.log.install().map_err(|mistake| origin.explain(mistake.under("log")))?;
    let mut bound = app::build(&config).map_err(|error| match error {
        BuildError::Invalid(mistake) => origin.explain(mistake).into(),
        BuildError::Bind(error) => not_bound(&error),
    })?;
    bound.metrics.watch_log(&log);
    bound.tell_unsafe(unsafe_keys);
    let (trigger, shutdown) = shutdown::channel();
    let cannot_start = |error: std::io::Error| Failure::other(format!("cannot start: {error}"));
    let hangup = signals::listen(trigger.clone()).map_err(cannot_start)?;
    bound.watch(watcher, hangup).run(&trigger, &shutdown).map_err(cannot_start)
}

/// What the system says of a port that cannot be bound, and what usually helps.
pub(super) fn not_bound(error: &BindError) -> Failure {
    let is_unix = error.address.path().is_some();
    let hint = match error.source.kind() {
        ErrorKind::AddrInUse => "another process listens there; choose another `listen`, or port 0 for any",
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address; choose another `listen`"
        }
        ErrorKind::PermissionDenied if is_unix => "let attaché's user write to the folder of the socket",
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE or a lower net.ipv4.ip_unprivileged_port_start; \
             choose a higher one"
        }
        ErrorKind::NotFound if is_unix => "create the folder of the socket",
        _ => return Failure::other(error.to_string()),
    };
    Failure::other(error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::Listen;

    #[test]
    fn a_port_that_cannot_be_bound_has_the_hint_that_fits() {
        for (listen, kind, hint) in [
            ("127.0.0.1:80", ErrorKind::AddrInUse, "another process"),
            ("127.0.0.1:80", ErrorKind::PermissionDenied, "below 1024"),
            ("192.0.2.1:7080", ErrorKind::AddrNotAvailable, "no interface"),
            ("unix:/run/x/y", ErrorKind::PermissionDenied, "write to the folder"),
            ("unix:/run/x/y", ErrorKind::NotFound, "create the folder"),
            ("127.0.0.1:7080", ErrorKind::OutOfMemory, "hint: None"),
        ] {
            let address = Listen::parse(listen).unwrap();
            let failure = not_bound(&BindError { address, source: kind.into() });
            assert!(format!("{failure:?}").contains(hint), "{failure:?}");
        }
    }
}

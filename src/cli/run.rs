//! `attache run`: the sidecar.

use clap::Args;

use super::{ConfigArgument, Failure, signals};
use crate::{
    app::{self, BuildError},
    config::{self, Loaded},
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
        BuildError::Bind(error) => Failure::other(error.to_string())
            .hint("another process may listen there; choose another `listen`, or port 0 for any"),
    })?;
    bound.metrics.watch_log(&log);
    bound.tell_unsafe(unsafe_keys);
    let (trigger, shutdown) = shutdown::channel();
    let cannot_start = |error: std::io::Error| Failure::other(format!("cannot start: {error}"));
    let hangup = signals::listen(trigger.clone()).map_err(cannot_start)?;
    bound.watch(watcher, hangup).run(&trigger, &shutdown).map_err(cannot_start)
}

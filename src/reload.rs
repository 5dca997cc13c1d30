//! Changes of the configuration while attaché runs.
//!
//! 1. [`Watcher::load`] reads the configuration for the first time and remembers the content of its file.
//! 2. [`Watcher::run`] looks at the content again, every two seconds and after SIGHUP. Content, not times or inodes: a
//!    ConfigMap changes by a symbolic link above the file, an editor by a new file, `cp` in place.
//! 3. What changed, and is the same a moment later, is loaded and given to the application, which builds all of it and swaps at
//!    once. That reads files, so it happens on a thread for blocking work: a file system that does not answer holds up nothing
//!    but the next change.
//! 4. A configuration that cannot be used changes nothing: the old one stays in force, with one warning a change. It is tried
//!    again now and then: a file that it names may come after it.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::{
    sync::Notify,
    task,
    time::{self, MissedTickBehavior},
};

use crate::{
    config::{self, LoadError, Loaded},
    invalid::Invalid,
    telemetry::metrics::{Metrics, ReloadOutcome},
};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// A file that has changed is read again after so long, until it is the same twice: somebody may be writing it.
const SETTLE: Duration = Duration::from_millis(250);

/// After so many of these reads what is there is taken: whoever writes all the time does not keep changes away.
const READS_TO_SETTLE: u32 = 20;

/// A load that has not ended by then is told of: a mount may hang.
const SLOW: Duration = Duration::from_secs(10);

/// With so many looks a content that was refused is tried again.
const LOOKS_TO_RETRY: u32 = 5;

/// Where the configuration comes from, and how its file looked when it was read last.
#[derive(Debug)]
pub struct Watcher {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    // Nothing when the file could not be read, which is a content of its own.
    content: Option<Vec<u8>>,
    condition: Condition,
}

/// What became of the latest change, for `/status`. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Condition(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default, Serialize)]
struct State {
    file: Option<PathBuf>,
    /// Seconds since 1970, when the configuration in force was loaded.
    loaded: u64,
    /// Why the latest change was not taken.
    rejected: Option<String>,
}

impl Condition {
    /// As JSON. Never holds a value of the configuration.
    pub fn view(&self) -> serde_json::Value {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A path that is not UTF-8 cannot be shown.
        serde_json::to_value(&*state).unwrap_or_default()
    }

    fn accepted(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.loaded = now.as_secs();
        state.rejected = None;
    }

    fn rejected(&self, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rejected = Some(why);
    }
}

impl Watcher {
    /// Reads the configuration for the first time.
    pub fn load(
        file: Option<PathBuf>,
        environment: Vec<(String, String)>,
    ) -> Result<(Self, Loaded), LoadError> {
        // The content comes first: a change between the two is then seen as one.
        let content = file.as_ref().and_then(|file| fs::read(file).ok());
        let loaded = config::load_with_origin(file.as_deref(), environment.clone())?;
        let condition = Condition::default();
        condition.0.lock().unwrap_or_else(PoisonError::into_inner).file.clone_from(&file);
        condition.accepted();
        Ok((Self { file, environment, content, condition }, loaded))
    }

    /// What became of the latest change.
    pub fn condition(&self) -> Condition {
        self.condition.clone()
    }

    /// Watches for ever. `hangup` asks for a load even if nothing changed; `apply` builds and swaps.
    pub async fn run(
        mut self,
        hangup: Arc<Notify>,
        metrics: Metrics,
        apply: impl FnMut(&Loaded) -> Result<(), Invalid> + Send + 'static,
    ) {
        let apply = Arc::new(Mutex::new(apply));
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Why the content was refused, and how many looks ago.
        let (mut refused, mut looks): (Option<String>, u32) = (None, 0);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = hangup.notified() => true,
            };
            let content = self.settled().await;
            let changed = content != self.content;
            looks += 1;
            let again = refused.is_some() && looks >= LOOKS_TO_RETRY;
            if !asked && !changed && !again {
                continue;
            }
            (self.content, looks) = (content, 0);
            let (file, content, environment) =
                (self.file.clone(), self.content.clone(), self.environment.clone());
            let apply = Arc::clone(&apply);
            let mut work = task::spawn_blocking(move || {
                // What has settled, not what is there by now.
                let loaded = config::load_content(file.as_deref(), content.as_deref(), environment)?;
                let mut apply = apply.lock().unwrap_or_else(PoisonError::into_inner);
                apply(&loaded).map_err(|mistake| loaded.origin.explain(mistake))
            });
            let done = match time::timeout(SLOW, &mut work).await {
                Ok(done) => done,
                Err(_) => {
                    tracing::warn!(
                        "reading what the changed configuration names takes long; the old one is in force"
                    );
                    work.await
                }
            };
            let Ok(outcome) = done else {
                tracing::error!(
                    "a changed configuration met a bug in attaché; please report it with the lines above"
                );
                metrics.reload(ReloadOutcome::Rejected);
                self.condition.rejected("it met a bug in attaché, which is in the log".into());
                continue;
            };
            match outcome {
                Ok(()) => {
                    tracing::info!("the configuration was reloaded");
                    metrics.reload(ReloadOutcome::Success);
                    self.condition.accepted();
                    refused = None;
                }
                Err(error) => {
                    let why = error.to_string();
                    let new = changed || refused.as_ref() != Some(&why);
                    if new || asked {
                        let hint = error.cure().unwrap_or_default();
                        tracing::warn!(%error, hint, "the changed configuration cannot be used; the old one stays");
                    }
                    if new {
                        metrics.reload(ReloadOutcome::Rejected);
                    }
                    self.condition.rejected(why.clone());
                    refused = Some(why);
                }
            }
        }
    }

    /// What the file holds: as it was, or the same twice, or what is there after a while.
    async fn settled(&self) -> Option<Vec<u8>> {
        let mut content = self.read().await;
        for _ in 0..READS_TO_SETTLE {
            if content == self.content {
                break;
            }
            time::sleep(SETTLE).await;
            let again = self.read().await;
            if again == content {
                break;
            }
            content = again;
        }
        content
    }

    async fn read(&self) -> Option<Vec<u8>> {
        tokio::fs::read(self.file.as_ref()?).await.ok()
    }
}

#[cfg(test)]
mod tests;

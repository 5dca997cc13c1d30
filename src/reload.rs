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
mod tests {
    use std::{os::unix::fs::symlink, path::Path};

    use tempfile::TempDir;
    use tokio::sync::mpsc;

    use super::*;

    fn text(upstream: &str) -> String {
        format!(
            "[credentials.a]\ntype = \"client_credentials\"\nissuer = \"https://idp.example\"\nclient_id = \"a\"\n\
             client_auth = \"none\"\n[routes.a]\nupstream = \"{upstream}\"\ncredential = \"a\"\n"
        )
    }

    /// A watcher that runs; each configuration that it applies comes out, `https://refused` being refused, and `https://later`
    /// as long as there is no `a.key` beside the file.
    struct Running {
        applied: mpsc::UnboundedReceiver<String>,
        hangup: Arc<Notify>,
        metrics: Metrics,
        condition: Condition,
    }

    fn start(file: &Path) -> Running {
        let (watcher, _) = Watcher::load(Some(file.to_owned()), Vec::new()).unwrap();
        let (hangup, metrics, condition) = (Arc::new(Notify::new()), Metrics::new(), watcher.condition());
        let (sender, applied) = mpsc::unbounded_channel();
        let key = file.with_extension("key");
        tokio::spawn(watcher.run(Arc::clone(&hangup), metrics.clone(), move |loaded| {
            let upstream = loaded.config.routes["a"].upstream.clone();
            let refused = upstream == "https://refused" || (upstream == "https://later" && !key.exists());
            sender.send(upstream).unwrap();
            if refused { Err(Invalid::new("routes.a.upstream", "no")) } else { Ok(()) }
        }));
        Running { applied, hangup, metrics, condition }
    }

    impl Running {
        async fn next(&mut self) -> String {
            self.applied.recv().await.unwrap()
        }

        fn count(&self, outcome: &str) -> Option<String> {
            let text = String::from_utf8(self.metrics.render()).unwrap();
            let line = format!("attache_config_reloads_total{{outcome=\"{outcome}\"}} ");
            text.lines().find_map(|found| found.strip_prefix(&line).map(str::to_owned))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_applied_and_a_bad_one_keeps_the_old_until_it_is_mended() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, text("https://one")).unwrap();
        let mut running = start(&file);
        fs::write(&file, text("https://two")).unwrap();
        assert_eq!(running.next().await, "https://two");
        fs::write(&file, text("https://refused")).unwrap();
        assert_eq!(running.next().await, "https://refused");
        fs::write(&file, "half a fi").unwrap();
        while running.count("rejected").as_deref() != Some("2") {
            time::sleep(INTERVAL).await;
        }
        assert!(running.condition.view()["rejected"].as_str().unwrap().contains("is not TOML"));
        fs::write(&file, text("https://three")).unwrap();
        assert_eq!(running.next().await, "https://three");
        while !running.condition.view()["rejected"].is_null() {
            time::sleep(INTERVAL).await;
        }
        assert_eq!(running.count("success").as_deref(), Some("2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_link_is_a_change_and_a_file_that_is_gone_is_one_warning() {
        let folder = TempDir::new().unwrap();
        for (version, upstream) in [("1", "https://one"), ("2", "https://two")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("a.toml"), text(upstream)).unwrap();
        }
        let link = folder.path().join("..data");
        symlink("1", &link).unwrap();
        symlink("..data/a.toml", folder.path().join("a.toml")).unwrap();
        let mut running = start(&folder.path().join("a.toml"));
        fs::remove_file(&link).unwrap();
        while running.count("rejected").as_deref() != Some("1") {
            time::sleep(INTERVAL).await;
        }
        time::sleep(INTERVAL * 10).await;
        assert_eq!(running.count("rejected").as_deref(), Some("1"));
        symlink("2", &link).unwrap();
        assert_eq!(running.next().await, "https://two");
    }

    #[tokio::test(start_paused = true)]
    async fn a_configuration_that_comes_before_a_file_that_it_names_is_taken_with_that_file() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, text("https://one")).unwrap();
        let mut running = start(&file);
        fs::write(&file, text("https://later")).unwrap();
        for _ in 0..4 {
            assert_eq!(running.next().await, "https://later");
        }
        assert_eq!(running.count("rejected").as_deref(), Some("1"), "it is told once");
        fs::write(folder.path().join("a.key"), "x").unwrap();
        while !running.condition.view()["rejected"].is_null() {
            time::sleep(INTERVAL).await;
        }
        assert_eq!(running.count("success").as_deref(), Some("1"));
        while running.applied.try_recv().is_ok() {}
        time::sleep(INTERVAL * 20).await;
        assert!(running.applied.try_recv().is_err(), "and not tried any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_taken_when_it_is_whole() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, text("https://one")).unwrap();
        let mut running = start(&file);
        // A look falls between the two writes, and the first one is a configuration, too.
        time::sleep(INTERVAL - Duration::from_millis(100)).await;
        fs::write(&file, text("https://half")).unwrap();
        time::sleep(Duration::from_millis(200)).await;
        fs::write(&file, text("https://whole")).unwrap();
        assert_eq!(running.next().await, "https://whole");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_written_all_the_time_is_taken_as_it_is() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, text("https://one")).unwrap();
        let mut running = start(&file);
        let writer = tokio::spawn(async move {
            for number in 0.. {
                fs::write(file.with_extension("next"), text(&format!("https://number-{number}"))).unwrap();
                fs::rename(file.with_extension("next"), &file).unwrap();
                time::sleep(SETTLE / 2).await;
            }
        });
        let taken = time::timeout(INTERVAL + SETTLE * 30, running.next()).await.unwrap();
        assert!(taken.starts_with("https://number-"));
        writer.abort();
    }

    #[tokio::test]
    async fn a_build_that_hangs_on_a_file_system_holds_nothing_else_up() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, text("https://one")).unwrap();
        let (watcher, _) = Watcher::load(Some(file), Vec::new()).unwrap();
        let (sender, mut hangs) = mpsc::unbounded_channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let hangup = Arc::new(Notify::new());
        tokio::spawn(watcher.run(Arc::clone(&hangup), Metrics::new(), move |_| {
            sender.send("hangs").unwrap();
            // Only if somebody else runs meanwhile.
            sender.send(answered.recv_timeout(INTERVAL * 5).map_or("late", |()| "answered")).unwrap();
            Ok(())
        }));
        hangup.notify_one();
        assert_eq!(hangs.recv().await, Some("hangs"));
        answer.send(()).unwrap();
        assert_eq!(hangs.recv().await, Some("answered"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hangup_loads_even_when_nothing_changed() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, text("https://one")).unwrap();
        let mut running = start(&file);
        time::sleep(INTERVAL * 10).await;
        assert!(running.applied.try_recv().is_err());
        running.hangup.notify_one();
        assert_eq!(running.next().await, "https://one");
    }
}

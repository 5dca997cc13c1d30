//! A reload from the file to the process: what is applied, what is refused and told, and what is tried again.

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
        self.metric(&format!("attache_config_reloads_total{{outcome=\"{outcome}\"}} "))
    }

    fn is_good(&self) -> bool {
        self.metric("attache_config_last_reload_successful ").as_deref() == Some("1")
    }

    fn metric(&self, line: &str) -> Option<String> {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        text.lines().find_map(|found| found.strip_prefix(line).map(str::to_owned))
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_applied_and_a_bad_one_keeps_the_old_until_it_is_mended() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.toml");
    fs::write(&file, text("https://one")).unwrap();
    let mut running = start(&file);
    assert!(running.is_good());
    fs::write(&file, text("https://two")).unwrap();
    assert_eq!(running.next().await, "https://two");
    fs::write(&file, text("https://refused")).unwrap();
    assert_eq!(running.next().await, "https://refused");
    fs::write(&file, "half a fi").unwrap();
    while running.count("rejected").as_deref() != Some("2") {
        time::sleep(INTERVAL).await;
    }
    assert!(running.condition.view()["rejected"].as_str().unwrap().contains("is not TOML"));
    // Told once, and true as long as nobody mends it.
    time::sleep(INTERVAL * LOOKS_TO_RETRY * 3).await;
    assert_eq!((running.is_good(), running.count("rejected").as_deref()), (false, Some("2")));
    fs::write(&file, text("https://three")).unwrap();
    assert_eq!(running.next().await, "https://three");
    while !running.condition.view()["rejected"].is_null() {
        time::sleep(INTERVAL).await;
    }
    assert_eq!((running.is_good(), running.count("success").as_deref()), (true, Some("2")));
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

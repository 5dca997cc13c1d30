//! What is kept, what is refused, and what a failing disk costs.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use super::*;
use crate::secret::Secret;

fn refresh(token: &str) -> StoredRefresh {
    StoredRefresh {
        token: Secret::new(token),
        origin: "o".into(),
        initial: None,
        audience: None,
        began: 1,
        expires: None,
        ends: Some(2),
    }
}

fn access(token: &str) -> StoredAccess {
    StoredAccess { token: Secret::new(token), config: "c".into(), origin: None, asked: 1, expires: 2 }
}

/// A folder of its own, a path in it, and a key.
struct Place {
    folder: tempfile::TempDir,
    key: tempfile::NamedTempFile,
}

impl Place {
    fn new() -> Self {
        let key = tempfile::NamedTempFile::new().unwrap();
        fs::write(key.path(), "k".repeat(32)).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), key }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("orders")
    }

    fn key(&self) -> SecretRef {
        SecretRef { file: Some(self.key.path().to_owned()), ..SecretRef::default() }
    }

    fn plain(&self) -> Store {
        Store::build(&self.path(), None).unwrap()
    }

    fn sealed(&self) -> Store {
        Store::build(&self.path(), Some(&self.key())).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart_and_for_one_user_only() {
    let place = Place::new();
    let mut store = place.plain();
    store.open().await.unwrap();
    assert_eq!(store.refresh(), None);
    store.keep_refresh(refresh("first")).await.unwrap();
    store.keep_refresh(refresh("second")).await.unwrap();
    store.keep_requests(vec![7]).await.unwrap();
    store.keep_access(access("hunter2")).await.unwrap();
    drop(store);
    assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(place.names(), ["orders", "orders.lock"]);
    assert!(!fs::read_to_string(place.path()).unwrap().contains("hunter2"), "an access token needs a key");
    let mut store = place.plain();
    store.open().await.unwrap();
    assert_eq!(store.refresh(), Some(&refresh("second")));
    assert_eq!((store.requests(), store.access("c")), (&[7][..], None));
}

#[tokio::test]
async fn a_sealed_store_shows_nothing_and_opens_with_its_key_only() {
    let place = Place::new();
    let mut store = place.sealed();
    store.open().await.unwrap();
    store.keep_refresh(refresh("hunter2")).await.unwrap();
    store.keep_access(access("hunter3")).await.unwrap();
    drop(store);
    let bytes = fs::read(place.path()).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"hunter"));
    let mut store = place.sealed();
    store.open().await.unwrap();
    assert_eq!((store.refresh(), store.access("c")), (Some(&refresh("hunter2")), Some(&access("hunter3"))));
    assert_eq!(store.access("another configuration"), None);
    // A new key is taken, and what is there is written with it.
    fs::write(place.key.path(), "n".repeat(32)).unwrap();
    store.look();
    assert!(store.is_behind());
    store.flush().await.unwrap();
    drop(store);
    let mut store = place.sealed();
    store.open().await.unwrap();
    assert_eq!(store.refresh(), Some(&refresh("hunter2")));
    drop(store);
    assert_eq!(place.plain().open().await, Err(StoreError::Undecipherable));
    fs::write(place.key.path(), "x".repeat(32)).unwrap();
    assert_eq!(place.sealed().open().await, Err(StoreError::Undecipherable));
    assert_ne!(fs::read(place.path()).unwrap(), bytes);
}

#[tokio::test]
async fn a_plain_store_is_sealed_once_there_is_a_key() {
    let place = Place::new();
    let mut store = place.plain();
    store.open().await.unwrap();
    store.keep_refresh(refresh("hunter2")).await.unwrap();
    drop(store);
    let mut store = place.sealed();
    store.open().await.unwrap();
    assert_eq!(store.refresh(), Some(&refresh("hunter2")));
    store.keep_access(access("hunter3")).await.unwrap();
    assert!(seal::is_sealed(&fs::read(place.path()).unwrap()));
}

#[tokio::test]
async fn one_process_uses_a_store() {
    let place = Place::new();
    let (mut one, mut other) = (place.plain(), place.plain());
    one.open().await.unwrap();
    assert_eq!(other.open().await, Err(StoreError::InUse));
    assert_eq!(other.keep_refresh(refresh("x")).await, Err(StoreError::InUse), "and nothing is written");
    assert_eq!(place.names(), ["orders.lock"]);
    drop(one);
    other.open().await.unwrap();
}

#[tokio::test]
async fn one_section_uses_a_store_also_where_the_lock_does_not_tell() {
    let place = Place::new();
    let (mut one, mut other) = (place.plain(), place.plain());
    let handover = Handover::default();
    one.inherit(handover.clone());
    other.inherit(handover);
    one.open().await.unwrap();
    one.keep_refresh(refresh("first")).await.unwrap();
    // As on a disk that is read-only by now: what would be locked is another file.
    let lock = place.folder.path().join("orders.lock");
    fs::remove_file(&lock).unwrap();
    symlink("nowhere", &lock).unwrap();
    assert_eq!(other.open().await, Err(StoreError::InUse));
    assert_eq!(other.problem(), Some(StoreError::InUse));
    let obstacle = place.folder.path().join("orders.new");
    fs::create_dir(&obstacle).unwrap();
    one.keep_refresh(refresh("second")).await.unwrap_err();
    drop(one);
    other.open().await.unwrap();
    assert_eq!((other.refresh(), other.problem()), (Some(&refresh("second")), None));
    // A third that is never opened takes nothing away.
    let mut third = place.plain();
    third.inherit(other.handover.clone());
    drop(third);
    let mut fourth = place.plain();
    fourth.inherit(other.handover.clone());
    assert_eq!(fourth.open().await, Err(StoreError::InUse));
    drop(other);
    fourth.open().await.unwrap();
    assert_eq!(fourth.refresh(), Some(&refresh("second")));
}

#[tokio::test]
async fn a_lock_that_can_only_be_read_still_keeps_others_away() {
    let place = Place::new();
    // Also for root, a folder cannot be opened to be written to.
    fs::create_dir(place.folder.path().join("orders.lock")).unwrap();
    let (mut one, mut other) = (place.plain(), place.plain());
    one.open().await.unwrap();
    one.keep_refresh(refresh("first")).await.unwrap();
    assert_eq!(other.open().await, Err(StoreError::InUse));
}

#[tokio::test]
async fn f15_what_cannot_be_written_stays_in_memory_and_the_old_file_stays_as_it_is() {
    let place = Place::new();
    let mut store = place.plain();
    store.open().await.unwrap();
    store.keep_refresh(refresh("first")).await.unwrap();
    let before = fs::read(place.path()).unwrap();
    // A folder where the temporary file goes: also for root, nothing can be written there.
    let obstacle = place.folder.path().join("orders.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(store.keep_refresh(refresh("second")).await, Err(StoreError::Unwritable(_))));
    assert_eq!((store.refresh(), store.is_behind()), (Some(&refresh("second")), true));
    assert!(store.problem().is_some());
    assert_eq!(fs::read(place.path()).unwrap(), before);
    fs::remove_dir(&obstacle).unwrap();
    store.flush().await.unwrap();
    assert_eq!((store.is_behind(), store.problem()), (false, None));
    drop(store);
    let mut store = place.plain();
    store.open().await.unwrap();
    assert_eq!(store.refresh(), Some(&refresh("second")));
}

#[tokio::test]
async fn whatever_a_store_holds_that_is_wrong_is_an_error_with_a_cure_and_stays_as_it_is() {
    let good = "{\"version\":1,\"refresh\":{\"token\":\"t\",\"origin\":\"o\",\"began\":1}}";
    let long = format!("{good}{}", " ".repeat(1024 * 1024));
    for (content, mode, expected) in [
        (good, 0o600, Ok(())),
        (good, 0o640, Err(StoreError::OpenToOthers)),
        (good, 0o602, Err(StoreError::OpenToOthers)),
        ("", 0o600, Err(StoreError::Corrupt)),
        ("null", 0o600, Err(StoreError::Corrupt)),
        ("{\"version\":2}", 0o600, Err(StoreError::Corrupt)),
        (
            "{\"version\":1,\"refresh\":{\"token\":\"\",\"origin\":\"\",\"began\":0}}",
            0o600,
            Err(StoreError::Corrupt),
        ),
        ("{\"version\":1,\"refresh\":{\"token\":7}}", 0o600, Err(StoreError::Corrupt)),
        (&good[..good.len() - 3], 0o600, Err(StoreError::Corrupt)),
        (&long, 0o600, Err(StoreError::TooLarge)),
    ] {
        let place = Place::new();
        fs::write(place.path(), content).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        let mut store = place.plain();
        let opened = store.open().await;
        assert_eq!(opened, expected, "{mode:o}");
        assert_eq!(fs::read_to_string(place.path()).unwrap(), content);
        if let Err(error) = opened {
            assert!(!error.cure().is_empty() && !error.to_string().contains("refresh\""));
        }
    }
}

#[tokio::test]
async fn a_link_or_a_folder_in_its_place_is_not_followed() {
    let place = Place::new();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), place.path()).unwrap();
    assert!(matches!(place.plain().open().await, Err(StoreError::Unreadable(_))));
    fs::remove_file(place.path()).unwrap();
    fs::create_dir(place.path()).unwrap();
    assert!(Store::build(&place.path(), None).is_err());
    let gone = place.folder.path().join("gone/with/orders");
    assert!(Store::build(&gone, None).unwrap_err().to_string().contains("create it"));
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let open = Store::build(&place.folder.path().join("x"), None);
    assert!(open.unwrap_err().to_string().contains("everybody"));
}

#[tokio::test]
async fn a_missing_folder_is_made_for_us_alone_also_where_everybody_can_write() {
    let place = Place::new();
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let folder = place.folder.path().join("store");
    let mut store = Store::build(&folder.join("orders"), None).unwrap();
    assert!(!folder.exists(), "nothing is made when a configuration is checked");
    store.open().await.unwrap();
    store.keep_refresh(refresh("t")).await.unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    let mut again = Store::build(&folder.join("orders"), None).unwrap();
    drop(store);
    again.open().await.unwrap();
    assert_eq!(again.refresh(), Some(&refresh("t")));
}

#[tokio::test]
async fn a_new_refresh_token_of_the_operator_overrides_a_store_that_cannot_be_read() {
    let place = Place::new();
    fs::write(place.path(), "garbage").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let mut store = place.plain();
    assert_eq!(store.open().await, Err(StoreError::Corrupt));
    store.open_anew().await.unwrap();
    assert_eq!(store.problem(), None);
    store.keep_refresh(refresh("new")).await.unwrap();
    assert!(fs::read_to_string(place.path()).unwrap().contains("new"));
}

#[tokio::test]
async fn what_a_killed_process_left_behind_is_in_nobodys_way() {
    let place = Place::new();
    fs::write(place.folder.path().join("orders.new"), "half of").unwrap();
    fs::write(place.folder.path().join("orders.lock"), "").unwrap();
    let mut store = place.plain();
    store.open().await.unwrap();
    store.keep_refresh(refresh("t")).await.unwrap();
    assert_eq!(place.names(), ["orders", "orders.lock"]);
}

#[test]
fn a_short_key_is_refused() {
    let place = Place::new();
    fs::write(place.key.path(), "short").unwrap();
    let invalid = Store::build(&place.path(), Some(&place.key())).unwrap_err();
    assert_eq!(invalid.key(), "store_key");
    assert!(!invalid.to_string().contains("short "), "{invalid}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_waited_for_a_little_and_told_of() {
    let place = Place::new();
    let mut store = place.plain();
    store.open().await.unwrap();
    let hung = Arc::clone(&store.disk).lock_owned().await;
    // Whoever asked for it is gone, and the write goes on.
    {
        let gone = store.keep_refresh(refresh("first"));
        assert!(time::timeout(Duration::ZERO, gone).await.is_err());
    }
    assert_eq!((store.problem(), store.is_behind()), (Some(StoreError::Stalled), true));
    for _ in 0..3 {
        let (kept, ()) =
            tokio::join!(store.keep_refresh(refresh("second")), time::advance(PATIENCE_OF_ROTATION));
        assert_eq!(kept, Err(StoreError::Stalled));
        let (flushed, ()) = tokio::join!(store.flush(), time::advance(PATIENCE));
        assert_eq!((flushed, store.problem()), (Err(StoreError::Stalled), Some(StoreError::Stalled)));
    }
    drop(hung);
    store.flush().await.unwrap();
    assert_eq!((store.problem(), store.is_behind()), (None, false));
    assert!(fs::read_to_string(place.path()).unwrap().contains("second"));
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_disk_hangs_is_opened_once_it_answers() {
    let place = Place::new();
    fs::write(place.path(), "garbage").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let mut store = place.plain();
    let hung = Arc::clone(&store.disk).lock_owned().await;
    for _ in 0..3 {
        let (opened, ()) = tokio::join!(store.open(), time::advance(PATIENCE));
        assert_eq!((opened, store.problem()), (Err(StoreError::Stalled), Some(StoreError::Stalled)));
    }
    drop(hung);
    store.open_anew().await.unwrap();
    assert_eq!((store.refresh(), store.problem()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_a_disk_that_hangs_once() {
    let place = Place::new();
    let mut store = place.plain();
    store.open().await.unwrap();
    let hung = Arc::clone(&store.disk).lock_owned().await;
    let (noted, ()) = tokio::join!(store.keep_requests(vec![7]), time::advance(PATIENCE));
    assert_eq!(noted, Err(StoreError::Stalled));
    // With what it has waited already, as long as for a new refresh token alone.
    let soon = PATIENCE_OF_ROTATION - PATIENCE + Duration::from_millis(1);
    let (kept, ()) =
        tokio::join!(time::timeout(soon, store.keep_refresh(refresh("first"))), time::advance(soon));
    assert_eq!(kept, Ok(Err(StoreError::Stalled)));
    drop(hung);
    // What hung has ended by now, and what comes next is waited for again.
    while !store.writing.as_ref().is_none_or(JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    store.keep_refresh(refresh("second")).await.unwrap();
    assert!(fs::read_to_string(place.path()).unwrap().contains("second"));
}

//! Whatever stands in a configuration file: no panic, a message of one screen, and what is taken is consistent.
//!
//! Input: a byte that chooses TOML or YAML, then the file.

#![no_main]

use std::{cell::RefCell, fs, path::PathBuf};

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A place in memory, where there is one.
fn path(ending: &str) -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
        });
        folder.path().join(format!("attache.{ending}"))
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let path = path(if *kind == b'y' { "yaml" } else { "toml" });
    fs::write(&path, text).unwrap();
    match attache::config::load(Some(&path), []) {
        Ok(config) => {
            config.check().unwrap();
            assert!(!config.routes.is_empty());
        }
        Err(error) => assert!(error.to_string().len() < 64 * 1024),
    }
});

//! `config/reference.toml` shows every key with its default. These tests fail when it does not.

use std::{collections::BTreeMap, path::Path};

use attache::config::{Key, Shape, load};

const REFERENCE: &str = include_str!("../../../config/reference.toml");

/// A key as the reference shows it.
#[derive(Debug)]
struct Shown {
    value: toml::Value,
    commented: bool,
    about: String,
}

/// Every key by its path, the name of a credential or route left out.
fn shown() -> BTreeMap<String, Vec<Shown>> {
    let mut keys: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    let (mut section, mut about) = (String::new(), String::new());
    for line in REFERENCE.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = generic(header.trim_end_matches(']'));
            about.clear();
            continue;
        }
        let (text, commented) = match line.strip_prefix("# ") {
            Some(text) => (text, true),
            None => (line, false),
        };
        let key = text.split_once(" = ").map(|(key, _)| key);
        let parsed = key.filter(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        match (parsed, toml::from_str::<toml::Table>(text)) {
            (Some(key), Ok(mut table)) => {
                let value = table.remove(key).unwrap();
                let shown = Shown { value, commented, about: about.clone() };
                keys.entry(format!("{section}.{key}")).or_default().push(shown);
            }
            _ => about = format!("{about}{text}\n"),
        }
    }
    keys
}

fn generic(section: &str) -> String {
    let mut parts: Vec<_> = section.split('.').collect();
    if matches!(parts[0], "credentials" | "routes") {
        parts[1] = "*";
    }
    parts.join(".")
}

/// Every key that can be written, by its path. References to secrets are shown whole, not key by key.
fn known(shape: &Shape, path: &str, keys: &mut BTreeMap<String, Key>) {
    if let Shape::Named(inner) = shape {
        known(inner, &format!("{path}.*"), keys);
    }
    for (name, key) in shape.keys() {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match &key.shape {
            Shape::Section(_) | Shape::Choice { .. } => known(&key.shape, &path, keys),
            Shape::Named(inner) if matches!(**inner, Shape::Choice { .. } | Shape::Section(_)) => {
                known(&key.shape, &path, keys);
            }
            _ => drop(keys.insert(path, key.clone())),
        }
    }
}

fn all_known() -> BTreeMap<String, Key> {
    let mut keys = BTreeMap::new();
    known(&Shape::of_config(), "", &mut keys);
    keys
}

#[test]
fn every_key_is_shown_and_nothing_else() {
    let (known, shown) = (all_known(), shown());
    assert!(known.len() > 30);
    for key in known.keys() {
        assert!(shown.contains_key(key), "`{key}` is missing in config/reference.toml");
    }
    for key in shown.keys() {
        assert!(known.contains_key(key), "`{key}` in config/reference.toml is not a key");
    }
}

#[test]
fn a_default_is_shown_as_it_is_and_what_has_none_is_commented_out() {
    let shown = shown();
    for (path, key) in all_known() {
        let lines = &shown[&path];
        assert!(lines.iter().all(|line| !line.about.trim().is_empty()), "`{path}` is not explained");
        match &key.default {
            Some(default) => {
                let line = lines.iter().find(|line| !line.commented);
                let line = line.unwrap_or_else(|| panic!("`{path}` has a default and is commented out"));
                let value = serde_json::to_value(&line.value).unwrap();
                assert!(same(&value, default), "`{path}`: the default is {default}, not {value}");
            }
            None => assert!(
                lines.iter().all(|line| line.commented || line.about.contains("equired") || key.required),
                "`{path}` has no default and is not commented out"
            ),
        }
    }
}

/// Durations may be written in another unit than they are printed in.
fn same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    let span = |value: &serde_json::Value| value.as_str()?.parse::<attache::duration::Span>().ok();
    one == other || span(one).is_some_and(|one| Some(one) == span(other))
}

#[test]
fn it_can_be_loaded() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/reference.toml"));
    let config = load(Some(file), []).unwrap();
    assert_eq!(config.routes["orders"].credential, "orders");
    assert_eq!(config.proxy, attache::proxy::ProxyConfig::default());
    assert_eq!(config.admin, attache::admin::AdminConfig::default());
}

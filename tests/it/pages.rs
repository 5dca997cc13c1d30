//! The front pages stay true: what they name exists, and what they configure loads.

use std::{fs, path::Path};

const PAGES: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn what_the_front_pages_link_to_exists() {
    for page in PAGES {
        let text = read(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists();
            assert!(link.starts_with("https://") || exists, "{page} links to `{link}`");
        }
    }
}

#[test]
fn the_files_that_the_architecture_names_exist() {
    let text = read("ARCHITECTURE.md");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folder = source.clone();
    for word in text.split('`').skip(1).step_by(2) {
        if let Some(path) = word.strip_prefix("src/").and_then(|path| path.strip_suffix('/')) {
            folder = source.join(path);
        } else if word.ends_with(".rs") && !word.contains('/') {
            assert!(folder.join(word).exists() || source.join(word).exists(), "{word}");
        }
    }
}

#[test]
fn the_tests_that_the_security_page_names_exist() {
    let mut tests = String::new();
    let mut folders = vec![
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                tests.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let page = read("SECURITY.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 5);
    for name in rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2)) {
        assert!(tests.contains(&format!("fn {name}(")), "{name}");
    }
}

#[test]
fn the_configuration_of_the_readme_loads() {
    let text = read("README.md");
    let block = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("attache.toml");
    fs::write(&file, block).unwrap();
    let config = attache::config::load(Some(&file), []).unwrap();
    assert_eq!(config.routes["orders"].credential, "orders");
}

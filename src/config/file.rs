//! The configuration file: TOML or YAML by its ending.
//!
//! Both parsers like to show the line that they cannot read, and that line may hold a secret: only the place and the
//! parser's fixed words are kept.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use figment::value::{Dict, Value};

use super::error::LoadError;

/// The largest file that is read, in bytes: a larger one is a mistake in the path.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Toml,
    Yaml,
}

/// What a file says, and in which line each key stands; YAML keys have none.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) dict: Dict,
    pub(super) lines: BTreeMap<String, usize>,
}

/// Reads the file, unless that has been done already, and parses what it holds.
pub(super) fn read(path: &Path, content: Option<&[u8]>) -> Result<Written, LoadError> {
    let format = format(path)?;
    let text = text(path, content.map_or_else(|| bytes(path), |content| Ok(content.to_vec()))?)?;
    let parsed = match format {
        Format::Toml => toml(&text),
        Format::Yaml => yaml(&text),
    };
    match parsed {
        Ok(Value::Dict(_, dict)) => {
            let mut lines = BTreeMap::new();
            if let (Format::Toml, Ok(table)) = (format, toml::de::DeTable::parse(&text)) {
                find_lines(table.get_ref(), &text, "", &mut lines);
            }
            Ok(Written { dict, lines })
        }
        // A YAML file with comments only.
        Ok(Value::Empty(..)) => Ok(Written::default()),
        Ok(_) => Err(LoadError::NotASection { file: path.to_owned() }),
        Err(Syntax { line, column, what }) => {
            let language = if format == Format::Toml { "TOML" } else { "YAML" };
            Err(LoadError::Syntax { file: path.to_owned(), language, line, column, what })
        }
    }
}

fn format(path: &Path) -> Result<Format, LoadError> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => Ok(Format::Toml),
        Some("yaml" | "yml") => Ok(Format::Yaml),
        _ => Err(LoadError::Ending { file: path.to_owned() }),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, LoadError> {
    let file = PathBuf::from(path);
    let unreadable = |error: io::Error| LoadError::Unreadable { file: file.clone(), kind: error.kind() };
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err(LoadError::Directory { file });
    }
    let opened = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(opened, MAX_BYTES + 1), &mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, LoadError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError::TooLarge { file: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| LoadError::NotText { file: path.to_owned() })?;
    // Editors of other systems put a byte order mark in front.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[derive(Debug, PartialEq, Eq)]
struct Syntax {
    line: u64,
    column: u64,
    what: String,
}

fn toml(text: &str) -> Result<Value, Syntax> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        // The parser's message is made of fixed words and its own tokens; its `Display` would add the line.
        Syntax {
            line: before.matches('\n').count() as u64 + 1,
            column: line.chars().count() as u64 + 1,
            what: error.message().to_owned(),
        }
    })?;
    Value::serialize(table).map_err(|_| Syntax { line: 1, column: 1, what: "this cannot be read".into() })
}

fn find_lines(table: &toml::de::DeTable<'_>, text: &str, section: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = if section.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{section}.{}", key.get_ref())
        };
        let before = text.get(..key.span().start).unwrap_or_default();
        lines.insert(path.clone(), before.matches('\n').count() + 1);
        if let toml::de::DeValue::Table(table) = value.get_ref() {
            find_lines(table, text, &path, lines);
        }
    }
}

fn yaml(text: &str) -> Result<Value, Syntax> {
    let options = serde_saphyr::options! {
        // `on`, `off`, `yes` and `no` are words (YAML 1.2).
        strict_booleans: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Option<Value>>(text, options) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Ok(Value::from(Dict::new())),
        Err(error) => {
            let what = match &error {
                serde_saphyr::Error::DuplicateMappingKey { .. } => "a key stands here twice",
                serde_saphyr::Error::MultipleDocuments { .. } => "expected one document",
                // Other messages may hold what was written.
                _ => "indentation, quotes or brackets do not fit",
            };
            let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
            Err(Syntax { line, column, what: what.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_tells_the_place_and_not_the_line() {
        let cases = [
            (toml("[a]\nb = 1\nsecret = hunter2\n"), 3),
            (toml("secret = \"hunter2\nx = 1"), 1),
            (toml("secret = 'hunter2' hunter2"), 1),
            (toml("secret hunter2"), 1),
            (toml("\"hunter2\" = 1\n\"hunter2\" = 2"), 2),
            (yaml("a: 1\nsecret: \"hunter2\nb: 2"), 0),
            (yaml("a: 1\nsecret: {hunter2"), 0),
            (yaml("a: 1\nhunter2: 2\nhunter2: 3"), 3),
            (yaml("secret: !!int hunter2"), 0),
            (yaml("secret: hunter2: x"), 1),
            (yaml("hunter2\n: x: hunter2\n- y"), 0),
        ];
        for (at, (outcome, line)) in cases.into_iter().enumerate() {
            let error = outcome.expect_err(&at.to_string());
            assert!(!format!("{error:?}").contains("hunter2"), "{at}: {error:?}");
            if line > 0 {
                assert_eq!(error.line, line, "{at}: {error:?}");
            }
        }
    }

    #[test]
    fn yaml_words_that_look_like_booleans_stay_words() {
        let Ok(Value::Dict(_, dict)) = yaml("a: off\nb: true\n") else { panic!("a section") };
        assert_eq!(dict["a"].as_str(), Some("off"));
        assert_eq!(dict["b"].to_bool(), Some(true));
    }
}

//! The JSON Schema of the configuration, for editors and for the `shape`.
//!
//! It is made of the types of the sections, by a test, and kept in a file: the code that makes it would be 0.3 MB of the binary.

use serde_json::Value;

const FILE: &str = include_str!("../../config/schema.json");

/// The schema.
pub fn schema() -> Value {
    serde_json::from_str(FILE).expect("a test has parsed it")
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;
    use crate::config::Config;

    /// As JSON without spaces, but with a line break where an object would be a long line: what changes is seen in a diff.
    fn lines(value: &Value) -> String {
        const LONG: usize = 160;
        let whole = value.to_string();
        match value {
            Value::Object(fields) if whole.len() > LONG => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), lines(value)))
                    .collect();
                format!("{{\n{}}}", fields.join(",\n"))
            }
            _ => whole,
        }
    }

    #[test]
    fn the_kept_schema_is_that_of_the_types() {
        let made = Value::from(schemars::schema_for!(Config));
        if env::var_os("ATTACHE_WRITE_SCHEMA").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema.json");
            fs::write(path, lines(&made) + "\n").unwrap();
        }
        let kept: Value = serde_json::from_str(FILE).unwrap();
        assert!(
            kept == made,
            "config/schema.json is not what the types say; `ATTACHE_WRITE_SCHEMA=1 cargo test --lib kept_schema` writes it, \
             and the next run compares"
        );
    }
}

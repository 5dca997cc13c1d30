//! What may stand in a configuration, as a tree: read from the JSON Schema, so that keys, types, words and defaults are
//! written down once, in the parts that own them.
//!
//! serde could say the same while it reads, but its messages show the value they refuse, and a value may be a secret
//! that somebody wrote in the wrong place. The tree lets us say what is wrong without showing it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::schema;

/// What a value must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Known keys.
    Section(BTreeMap<String, Key>),
    /// Where a secret is: known keys, and nothing in it is ever shown, not even an unknown key.
    Secret(BTreeMap<String, Key>),
    /// Known keys, some of which depend on the word under one of them.
    Choice {
        /// The key whose word decides.
        tag: String,
        /// The keys that are there for every word, the tag among them.
        common: BTreeMap<String, Key>,
        /// The further keys of each word.
        variants: BTreeMap<String, BTreeMap<String, Key>>,
    },
    /// Keys that the operator makes up, all of the same shape.
    Named(Box<Shape>),
    /// A list.
    List(Box<Shape>),
    /// Text.
    Text,
    /// A duration, see [`crate::duration::Span`].
    Duration,
    /// One of these words.
    Words(Vec<String>),
    /// A whole number from 0 to this.
    Whole(u64),
    /// A number from 0 to 1.
    Share,
    /// `true` or `false`.
    Flag,
    /// Something that this tree cannot express; serde decides.
    Any,
}

/// A key of a section.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// What stands under it.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// What it does, for hints.
    pub about: String,
    /// What holds when it is not there, if anything does.
    pub default: Option<Value>,
}

impl Shape {
    /// The shape of the whole configuration.
    pub fn of_config() -> Self {
        let schema = schema::schema();
        let empty = Map::new();
        let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&empty);
        Reader { definitions }.shape(&schema)
    }

    /// The keys that may stand here, those of every variant included.
    pub fn keys(&self) -> BTreeMap<&str, &Key> {
        let (fixed, variants) = match self {
            Self::Section(keys) | Self::Secret(keys) => (keys, None),
            Self::Choice { common, variants, .. } => (common, Some(variants)),
            _ => return BTreeMap::new(),
        };
        let variants = variants.into_iter().flatten().flat_map(|(_, keys)| keys);
        fixed.iter().chain(variants).map(|(name, key)| (name.as_str(), key)).collect()
    }

    /// What stands under `key`, if it may be there at all.
    pub fn under(&self, key: &str) -> Option<&Shape> {
        match self {
            Self::Named(shape) => Some(shape),
            _ => self.keys().get(key).map(|key| &key.shape),
        }
    }
}

struct Reader<'a> {
    definitions: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn shape(&self, node: &Value) -> Shape {
        if let Some(inner) = optional(node) {
            return self.shape(inner);
        }
        let reference = node["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
        // A variant refers to its keys and adds the tag; a plain reference adds only a description and a default.
        if let (Some(name), None) = (reference, node.get("properties")) {
            let target = self.definitions.get(name).unwrap_or(&Value::Null);
            return match (name, self.shape(target)) {
                ("SecretRef", Shape::Section(keys)) => Shape::Secret(keys),
                ("Duration", Shape::Text) => Shape::Duration,
                (_, shape) => shape,
            };
        }
        if let Some(words) = words(node) {
            return Shape::Words(words);
        }
        if let Some(variants) = node["oneOf"].as_array() {
            return self.choice(node, variants);
        }
        match kind(node) {
            Some("object") => match node.get("additionalProperties") {
                Some(inner @ Value::Object(_)) => Shape::Named(Box::new(self.shape(inner))),
                _ => Shape::Section(self.section(node)),
            },
            Some("array") => Shape::List(Box::new(self.shape(&node["items"]))),
            Some("string") => Shape::Text,
            Some("boolean") => Shape::Flag,
            Some("integer") => Shape::Whole(match node["format"].as_str() {
                Some("uint8") => u8::MAX.into(),
                Some("uint16") => u16::MAX.into(),
                Some("uint32") => u32::MAX.into(),
                // TOML's whole numbers end here.
                _ => i64::MAX as u64,
            }),
            // The only numbers with a fraction that there are.
            Some("number") => Shape::Share,
            _ => Shape::Any,
        }
    }

    /// The keys of a node, those of what it refers to included.
    fn section(&self, node: &Value) -> BTreeMap<String, Key> {
        let mut keys = BTreeMap::new();
        let target = node["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
        if let Some(target) = target.and_then(|name| self.definitions.get(name)) {
            keys = self.section(target);
        }
        let required = node["required"].as_array();
        for (name, node) in node["properties"].as_object().into_iter().flatten() {
            let key = Key {
                shape: self.shape(node),
                required: required.is_some_and(|names| names.iter().any(|required| required == name)),
                about: node["description"].as_str().unwrap_or_default().replace('\n', " "),
                default: node.get("default").filter(|default| !default.is_null()).cloned(),
            };
            keys.insert(name.clone(), key);
        }
        keys
    }

    fn choice(&self, node: &Value, nodes: &[Value]) -> Shape {
        let mut tag = None;
        let mut variants = BTreeMap::new();
        for node in nodes {
            let properties = node["properties"].as_object().into_iter().flatten();
            let Some((name, word)) =
                properties.into_iter().find_map(|(name, node)| Some((name, node["const"].as_str()?)))
            else {
                return Shape::Any;
            };
            let mut keys = self.section(node);
            keys.remove(name);
            tag = Some(name.clone());
            variants.insert(word.to_owned(), keys);
        }
        let Some(tag) = tag else { return Shape::Any };
        let words = Shape::Words(variants.keys().cloned().collect());
        let about = "What kind it is.".to_owned();
        let mut common = self.section(node);
        common.insert(tag.clone(), Key { shape: words, required: true, about, default: None });
        Shape::Choice { tag, common, variants }
    }
}

/// `anyOf` something and null: how an optional reference is written.
fn optional(node: &Value) -> Option<&Value> {
    match node["anyOf"].as_array()?.as_slice() {
        [inner, null] if null["type"] == "null" => Some(inner),
        _ => None,
    }
}

fn words(node: &Value) -> Option<Vec<String>> {
    if let Some(words) = node["enum"].as_array() {
        return words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    }
    let nodes = node["oneOf"].as_array()?;
    nodes.iter().map(|node| node["const"].as_str().map(str::to_owned)).collect()
}

/// The type of a node that is not null.
fn kind(node: &Value) -> Option<&str> {
    match &node["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &[&str]) -> Shape {
        let mut shape = Shape::of_config();
        for key in path {
            shape = shape.under(key).unwrap_or_else(|| panic!("{key} of {path:?}")).clone();
        }
        shape
    }

    #[test]
    fn the_tree_knows_every_kind_of_value_that_the_parts_use() {
        assert_eq!(at(&["log", "format"]), Shape::Words(vec!["text".into(), "logfmt".into(), "json".into()]));
        assert_eq!(at(&["proxy", "workers"]), Shape::Whole(i64::MAX as u64));
        assert_eq!(at(&["traces", "sample_ratio"]), Shape::Share);
        assert_eq!(at(&["proxy", "idle_timeout"]), Shape::Duration);
        assert_eq!(at(&["proxy", "required_header"]), Shape::Text);
        assert_eq!(at(&["proxy", "allowed_hosts"]), Shape::List(Box::new(Shape::Text)));
        assert_eq!(at(&["routes", "any", "strip_prefix"]), Shape::Flag);
        assert_eq!(at(&["credentials", "any", "parameters", "any"]), Shape::Text);
        assert!(matches!(at(&["credentials", "any", "client_secret"]), Shape::Secret(_)));
        assert!(matches!(at(&["credentials", "any"]), Shape::Choice { tag, .. } if tag == "type"));
    }

    #[test]
    fn nothing_is_left_to_serde() {
        fn look(shape: &Shape, path: &str) {
            assert_ne!(*shape, Shape::Any, "{path}");
            for (name, key) in shape.keys() {
                look(&key.shape, &format!("{path}.{name}"));
            }
            if let Shape::Named(inner) | Shape::List(inner) = shape {
                look(inner, &format!("{path}.*"));
            }
        }
        look(&Shape::of_config(), "");
    }
}

//! Which layer a key came from, so that a mistake can be told with the file or the variable in which to mend it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    error::{LoadError, Place},
    shape::Shape,
};
use crate::invalid::Invalid;

/// The file with the lines of its keys, and the variables by the keys that they set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    file: Option<PathBuf>,
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
}

impl Origin {
    /// Only the file, so far.
    pub(super) fn new(file: Option<&Path>, lines: BTreeMap<String, usize>) -> Self {
        Self { file: file.map(Path::to_owned), lines, variables: BTreeMap::new() }
    }

    /// `variable` sets the key. Returns the variable that did so before.
    pub(super) fn set(&mut self, key: String, variable: String) -> Option<String> {
        self.variables.insert(key, variable)
    }

    /// The file of the configuration, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where to look for `key`: the variable that set it or the section around it, else the file, else a variable that
    /// set something in it.
    pub fn place(&self, key: &str) -> Place {
        let below = |key: &str, section: &str| {
            key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let over = self.variables.iter().rev().find(|(set, _)| below(key, set));
        let under = || self.variables.iter().find(|(set, _)| below(set, key));
        match (over, &self.file) {
            (Some((_, variable)), _) => Place::Variable(variable.clone()),
            (None, Some(file)) => {
                // The line of the key, or of the section in which it is missing.
                let line =
                    self.lines.iter().rev().find(|(known, _)| below(key, known)).map(|(_, line)| *line);
                Place::File { file: file.clone(), line }
            }
            (None, None) => match under() {
                Some((_, variable)) => Place::Variable(variable.clone()),
                None => Place::Environment,
            },
        }
    }

    /// A mistake that a part found, with the place in which to mend it, and with what the key does if nobody knows a cure.
    pub fn explain(&self, invalid: Invalid) -> LoadError {
        let invalid = match (invalid.cure(), about(invalid.key())) {
            (None, Some(about)) => invalid.hint(about),
            _ => invalid,
        };
        LoadError::Invalid { place: self.place(invalid.key()), invalid }
    }
}

/// What the key does, or the section around it.
fn about(key: &str) -> Option<String> {
    let mut shape = Shape::of_config();
    let mut about = None;
    for part in key.split('.') {
        if let Some(key) = shape.keys().get(part) {
            about = Some(key.about.clone());
        }
        let Some(inner) = shape.under(part) else { break };
        shape = inner.clone();
    }
    about.filter(|about| !about.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_looked_for_in_the_layer_that_set_it() {
        let mut origin = Origin::new(Some(Path::new("a.toml")), BTreeMap::from([("routes.a".into(), 3)]));
        origin.set("routes.a.inject.header".into(), "V".into());
        origin.set("routes.ab".into(), "W".into());
        let file = |line| Place::File { file: "a.toml".into(), line };
        for (key, place) in [
            ("routes.a.inject.header", Place::Variable("V".into())),
            ("routes.a.inject", file(Some(3))),
            ("routes.a", file(Some(3))),
            ("routes.ab.upstream", Place::Variable("W".into())),
            ("routes.abc", file(None)),
        ] {
            assert_eq!(origin.place(key), place, "{key}");
        }
    }
}

//! The configuration that stands in environment variables: `ATTACHE__ROUTES__ORDERS__UPSTREAM` is `routes.orders.upstream`.
//!
//! 1. The path is what stands behind `ATTACHE__`, split at two underscores, in lower case. One underscore would collide
//!    with the variables that Kubernetes sets for a Service called `attache`.
//! 2. A `-` in a made-up name may be written as it is, where variables may hold one (Kubernetes, Compose). Elsewhere a
//!    single `_` stands for it: the name is then looked for in the file.
//! 3. Names of credentials and routes are lower-case. Other keys that somebody makes up (parameters, claims, variables of a
//!    helper) go to somebody who may tell `Key` from `key`, and keep their case; one that the file has is meant in any case.
//! 4. The shape under the path decides how the value is read: text as it stands, anything else as TOML writes it.
//! 5. A reference to a secret replaces the file's reference instead of being mixed with it.

use std::ffi::OsString;

use figment::value::{Dict, Value};

use super::{
    check,
    error::{LoadError, Place},
    shape::Shape,
};

/// What every variable of ours begins with.
const PREFIX: &str = "ATTACHE__";

/// What one variable sets.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    /// The variable's name.
    pub(super) name: String,
    /// The path of the key that it sets.
    pub(super) path: Vec<String>,
    /// Nested sections down to the value.
    pub(super) dict: Dict,
}

/// The variables of this process that are ours.
pub fn of_process() -> Result<Vec<(String, String)>, LoadError> {
    ours(std::env::vars_os())
}

fn ours(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, LoadError> {
    variables
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|(name, value)| {
            let name = name.into_string().map_err(|name| name.to_string_lossy().into_owned());
            match (name, value.into_string()) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                (Ok(name) | Err(name), _) => Err(LoadError::VariableNotText { variable: name }),
            }
        })
        .collect()
}

/// Reads a variable, if it is ours. What it overrides in `file` and must not be mixed with is removed there.
pub(super) fn read(
    name: &str,
    value: &str,
    shape: &Shape,
    file: &mut Dict,
) -> Result<Option<Variable>, LoadError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    let written: Vec<&str> = rest.split("__").collect();
    let mut path: Vec<String> = written.iter().map(|part| part.to_lowercase()).collect();
    if path.iter().any(String::is_empty) {
        return Err(LoadError::VariableName { variable: name.to_owned() });
    }
    let mut here = Some(shape.clone());
    for at in 0..path.len() {
        if let Some(Shape::Named(inner)) = &here {
            let keeps_case = !matches!(**inner, Shape::Section(_) | Shape::Choice { .. });
            if keeps_case {
                written[at].clone_into(&mut path[at]);
            }
            if let Some(Value::Dict(_, names)) = find(file, &path[..at])
                && let Some(known) = known_name(&path[at], keeps_case, names)
            {
                path[at] = known;
            }
        }
        here = match &here {
            // One place is named, by whichever layer speaks last.
            Some(Shape::Secret(_)) if path[at] == "file" || path[at] == "env" => {
                remove(file, &path[..at]);
                here.as_ref().and_then(|shape| shape.under(&path[at])).cloned()
            }
            Some(secret @ Shape::Secret(_)) if secret.under(&path[at]).is_none() => {
                let invalid = check::not_a_reference().under(&path[..at].join("."));
                return Err(LoadError::Invalid { place: Place::Variable(name.to_owned()), invalid });
            }
            _ => here.as_ref().and_then(|shape| shape.under(&path[at])).cloned(),
        };
    }
    if let Some(Shape::Secret(_)) = here {
        remove(file, &path);
    }
    let value = parse(value, here.as_ref());
    let dict = path.iter().rev().fold(value, |value, key| Value::from(Dict::from([(key.clone(), value)])));
    let Value::Dict(_, dict) = dict else { return Ok(None) };
    Ok(Some(Variable { name: name.to_owned(), path, dict }))
}

/// What is not text is written as in TOML. What cannot be read stays text, which the check then refuses.
fn parse(text: &str, shape: Option<&Shape>) -> Value {
    let parsed = match shape {
        None | Some(Shape::Text | Shape::Duration | Shape::Words(_)) => None,
        Some(_) => toml::de::ValueDeserializer::parse(text.trim())
            .and_then(<toml::Value as serde::Deserialize>::deserialize)
            .ok()
            .and_then(|value| Value::serialize(value).ok()),
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

/// The name in the file that is meant: itself, or the only one that differs in `-` for `_`, or in its case.
fn known_name(written: &str, any_case: bool, names: &Dict) -> Option<String> {
    if names.contains_key(written) {
        return None;
    }
    let is_alike = |name: &str| if any_case { name.eq_ignore_ascii_case(written) } else { name == written };
    let mut alike = names.keys().filter(|name| is_alike(name) || is_alike(&name.replace('-', "_")));
    match (alike.next(), alike.next()) {
        (Some(name), None) => Some(name.clone()),
        _ => None,
    }
}

fn find<'a>(dict: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(dict.get(first)?, |value, key| match value {
        Value::Dict(_, dict) => dict.get(key),
        _ => None,
    })
}

fn remove(dict: &mut Dict, path: &[String]) {
    match path {
        [last] => drop(dict.remove(last)),
        [first, rest @ ..] => {
            if let Some(Value::Dict(_, dict)) = dict.get_mut(first) {
                remove(dict, rest);
            }
        }
        [] => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_variable_that_is_not_text_is_an_error_that_names_it() {
        let value = OsString::from_vec(b"hunter2\xff".to_vec());
        let error = ours([("ATTACHE__LOG__FILTER".into(), value)].into_iter()).unwrap_err().to_string();
        assert!(error.contains("ATTACHE__LOG__FILTER") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_called_attache_are_not_ours() {
        let kubernetes = ["ATTACHE_SERVICE_HOST", "ATTACHE_PORT", "ATTACHE_PORT_7080_TCP_ADDR"];
        assert_eq!(ours(kubernetes.map(|name| (name.into(), "x".into())).into_iter()).unwrap(), []);
    }
}

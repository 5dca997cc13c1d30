//! Compares what was written with what may stand there, and says what is wrong without showing a value: whatever was
//! written in the wrong place may be a secret.

use figment::value::{Dict, Num, Value};

use super::shape::{Key, Shape};
use crate::{duration::Span, invalid::Invalid};

/// Checks the whole configuration; the first mistake ends it.
pub(super) fn check(value: &Dict, shape: &Shape) -> Result<(), Invalid> {
    let keys = shape.keys();
    section(value, |key| keys.get(key).copied(), keys.keys().copied())?;
    ["credentials", "routes"].into_iter().try_for_each(|section| names(value, section))
}

fn walk(value: &Value, shape: &Shape) -> Result<(), Invalid> {
    match (shape, value) {
        (Shape::Section(keys), Value::Dict(_, dict)) => {
            section(dict, |key| keys.get(key), keys.keys().map(String::as_str))?;
            complete(dict, keys.iter())
        }
        (Shape::Secret(keys), Value::Dict(_, dict)) => secret(dict, |key| keys.get(key)),
        (Shape::Choice { tag, common, variants }, Value::Dict(_, dict)) => {
            // Without a usable tag every key of every variant is known, so that the tag is what gets reported.
            let chosen = dict.get(tag).and_then(Value::as_str).and_then(|word| variants.get(word));
            let known = || match chosen {
                Some(keys) => common.iter().chain(keys).collect::<Vec<_>>(),
                None => common.iter().chain(variants.values().flatten()).collect(),
            };
            let find = |key: &str| known().into_iter().find(|(name, _)| *name == key).map(|(_, key)| key);
            section(dict, find, known().into_iter().map(|(name, _)| name.as_str()))?;
            complete(dict, common.iter().chain(chosen.into_iter().flatten()))
        }
        (Shape::Named(inner), Value::Dict(_, dict)) => {
            dict.iter().try_for_each(|(name, value)| walk(value, inner).map_err(|e| e.under(&shown(name))))
        }
        (Shape::List(inner), Value::Array(_, values)) => values
            .iter()
            .enumerate()
            .try_for_each(|(at, value)| walk(value, inner).map_err(|e| e.under(&at.to_string()))),
        (Shape::Text, Value::String(..)) | (Shape::Flag, Value::Bool(..)) | (Shape::Any, _) => Ok(()),
        (Shape::Duration, Value::String(_, text)) => {
            text.parse::<Span>().map(drop).map_err(|wrong| Invalid::new("", wrong))
        }
        (Shape::Words(words), Value::String(_, text)) if words.contains(text) => Ok(()),
        (Shape::Words(words), Value::String(_, text)) => {
            let mistake = wrong_type(shape);
            Err(match nearest(text, words.iter().map(String::as_str)) {
                Some(near) => mistake.hint(format!("did you mean `{near}`?")),
                None => mistake,
            })
        }
        (Shape::Whole(max), Value::Num(_, number)) if whole(*number).is_some_and(|number| number <= *max) => {
            Ok(())
        }
        (Shape::Share, Value::Num(_, number)) if share(*number) => Ok(()),
        _ => Err(wrong_type(shape)),
    }
}

fn section<'a>(
    dict: &Dict,
    find: impl Fn(&str) -> Option<&'a Key>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Invalid> {
    if let Some(key) = dict.keys().find(|key| find(key).is_none()) {
        let hint = match nearest(key, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", listed(known)),
        };
        return Err(Invalid::new(shown(key), "unknown key").hint(hint));
    }
    for (name, value) in dict {
        if let Some(key) = find(name) {
            below(name, key, value)?;
        }
    }
    Ok(())
}

/// A mistake below a key whose cure is not known is explained with what the key does.
fn below(name: &str, key: &Key, value: &Value) -> Result<(), Invalid> {
    // YAML: a key with nothing behind it is a key that is not there.
    if matches!(value, Value::Empty(..)) {
        return Ok(());
    }
    walk(value, &key.shape).map_err(|mistake| {
        let mistake = mistake.under(name);
        match mistake.cure() {
            None if !key.about.is_empty() => mistake.hint(key.about.clone()),
            _ => mistake,
        }
    })
}

fn complete<'a>(dict: &Dict, keys: impl Iterator<Item = (&'a String, &'a Key)>) -> Result<(), Invalid> {
    for (name, key) in keys {
        if key.required && dict.get(name).is_none_or(|value| matches!(value, Value::Empty(..))) {
            let hint = match &key.shape {
                Shape::Words(words) => format!("add `{name}`: {}", listed(words.iter().map(String::as_str))),
                _ => format!("add `{name}`: {}", key.about.trim_end_matches('.')),
            };
            return Err(Invalid::new(name, "this required key is missing").hint(hint));
        }
    }
    Ok(())
}

fn secret<'a>(dict: &Dict, find: impl Fn(&str) -> Option<&'a Key>) -> Result<(), Invalid> {
    for (name, value) in dict {
        match find(name) {
            Some(key) => below(name, key, value)?,
            // An unknown key may be the secret itself, between the wrong braces.
            None => return Err(not_a_reference()),
        }
    }
    Ok(())
}

pub(super) fn not_a_reference() -> Invalid {
    Invalid::new("", "expected a reference such as { file = \"/run/secrets/name\" } or { env = \"NAME\" }").hint(
        "a secret never stands in the configuration: put it into a file that only attaché's user can read, and name \
         that file here",
    )
}

fn wrong_type(shape: &Shape) -> Invalid {
    let whole;
    let words;
    Invalid::new(
        "",
        match shape {
            Shape::Secret(_) => return not_a_reference(),
            Shape::Section(_) | Shape::Choice { .. } | Shape::Named(_) => "expected a section with keys",
            Shape::List(_) => "expected a list, such as [\"a\", \"b\"]",
            Shape::Text => "expected text in quotes",
            Shape::Duration => "expected a duration in quotes, such as \"250ms\", \"5s\", \"10m\" or \"1h\"",
            Shape::Share => "expected a number from 0 to 1, without quotes",
            Shape::Flag => "expected true or false, without quotes",
            Shape::Whole(max) => {
                whole = match i64::try_from(*max) {
                    Ok(i64::MAX) => "expected a whole number, 0 or more, without quotes".to_owned(),
                    _ => format!("expected a whole number from 0 to {max}, without quotes"),
                };
                &whole
            }
            Shape::Words(known) => {
                words = format!("expected one of {}", listed(known.iter().map(String::as_str)));
                &words
            }
            Shape::Any => "this cannot be read",
        },
    )
}

/// Names end up in metric labels and in the names of environment variables.
fn names(value: &Dict, section: &str) -> Result<(), Invalid> {
    let Some(Value::Dict(_, dict)) = value.get(section) else { return Ok(()) };
    for name in dict.keys() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
        let inside = name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'_');
        if !ends || !inside || name.contains("__") || name.len() > 63 {
            return Err(Invalid::new(format!("{section}.{}", shown(name)), "this name cannot be used").hint(
                "use at most 63 lower-case letters, digits, `-` and single `_`, with a letter or digit at both ends",
            ));
        }
    }
    Ok(())
}

/// Keys with nothing behind them, which the check has let through, are taken out for serde.
pub(super) fn without_empty(dict: &mut Dict) {
    dict.retain(|_, value| !matches!(value, Value::Empty(..)));
    for value in dict.values_mut() {
        if let Value::Dict(_, dict) = value {
            without_empty(dict);
        }
    }
}

/// A made-up key as it can be printed: no control characters, not endless.
fn shown(key: &str) -> String {
    key.escape_debug().take(63).collect()
}

fn whole(number: Num) -> Option<u64> {
    number.to_u128().or_else(|| number.to_i128().and_then(|number| number.try_into().ok()))?.try_into().ok()
}

/// Whether a number is from 0 to 1; `nan` is not.
fn share(number: Num) -> bool {
    match number {
        Num::F32(number) => (0.0..=1.0).contains(&number),
        Num::F64(number) => (0.0..=1.0).contains(&number),
        _ => whole(number).is_some_and(|number| number <= 1),
    }
}

fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    words.sort();
    words.dedup();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
        None => String::new(),
    }
}

/// The known word that was most likely meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    known
        .map(|known| (strsim::damerau_levenshtein(&word, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_only_when_it_is_near() {
        let known = ["listen", "workers", "unsafe_plaintext"];
        for (word, near) in [
            ("listn", Some("listen")),
            ("Listen", Some("listen")),
            ("unsafe-plain-text", Some("unsafe_plaintext")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), near, "{word}");
        }
    }
}

//! `attache whoami`: who the token of a credential speaks for, and who says so.

use clap::Args;
use serde_json::json;

use super::{ConfigArgument, Failure, online, output};
use crate::token::{Clock, identify};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The credential
    name: String,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = arguments.config.load()?;
    let name = &arguments.name;
    let (manager, credential) = online::one_credential(&loaded.config, &loaded.origin, name)?;
    let config = &loaded.config.credentials[name];
    let found = super::block_on(async {
        let token = online::first_token(config, &manager, &credential).await;
        let token = token.map_err(|error| Failure::other(error.message).hint(error.hint))?;
        let found = identify(config, token.token(), Clock::default()).await;
        found.map_err(|mistake| {
            Failure::from(loaded.origin.explain(mistake.under(&format!("credentials.{name}"))))
        })
    })?;
    let (identity, failed) = found?;
    for (authority, error) in &failed {
        output::complain(&format!("note: {} does not tell: {error}", authority.name()));
    }
    let Some(identity) = identity else {
        return Err(Failure::other(
            "nobody can say whom this token speaks for: it is opaque, and the provider does not tell",
        )
        .hint(
            "ask for the scope `openid`, or name the `issuer` or an `introspection_endpoint` of the provider",
        ));
    };
    let inactive = identity.claims.get("active") == Some(&false.into());
    let told = json!({
        "credential": name,
        "according_to": identity.authority.name(),
        "verified": identity.authority.is_verified(),
        "identity": identity.claims,
    });
    output::line(&harmless(&serde_json::to_string_pretty(&told).unwrap_or_default()))?;
    match inactive {
        true => Err(Failure::other("the provider says that this token is not active")),
        false => Ok(()),
    }
}

/// The provider chose these words, and a terminal may obey them: what controls one, or turns the direction of writing
/// around, is escaped as JSON does it. It can only stand within strings.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        let turns =
            matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match letter {
            '\n' => text.push(letter),
            // All of these have four digits.
            _ if turns || letter.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_cannot_control_a_terminal() {
        let said = json!({ "name": "a\u{9b}31m\u{1b}[2J\u{202e}b é\n\u{7f}" });
        let text = harmless(&serde_json::to_string_pretty(&said).unwrap());
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()) && text.contains('é'));
        assert!(!text.contains('\u{202e}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), said);
    }
}

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
        let token = online::first_token(&manager, &credential).await;
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
    output::line(&serde_json::to_string_pretty(&told).unwrap_or_default())?;
    match inactive {
        true => Err(Failure::other("the provider says that this token is not active")),
        false => Ok(()),
    }
}

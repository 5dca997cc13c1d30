//! What the operator wrote.
//!
//! 1. The `file` is parsed: TOML or YAML.
//! 2. The `environment` is laid over it; what neither says has the default that stands beside the key in its part.
//! 3. The `check` compares all of it with the `shape` of the configuration, which is read from the JSON Schema:
//!    unknown keys, missing keys, wrong types. Only then does serde read it, because serde's messages show values.
//! 4. [`Config`] holds the sections. What they must `agree` on is checked here; what only the part that a section
//!    belongs to can know, when that part is built.
//! 5. Whatever is wrong ends up as one [`LoadError`], with the place that [`Origin`] remembers.

mod agree;
mod check;
mod environment;
mod error;
mod file;
mod origin;
mod schema;
mod shape;

use std::{collections::BTreeMap, path::Path};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};
use serde::Deserialize;

pub use self::{
    environment::of_process as environment,
    error::{LoadError, Place},
    origin::Origin,
    schema::schema,
    shape::{Key, Shape},
};
use crate::{
    admin::AdminConfig,
    invalid::Invalid,
    listen::Listen,
    proxy::{ProxyConfig, RouteConfig},
    shutdown::ShutdownConfig,
    telemetry::{logging::LogConfig, traces::TracesConfig},
    token::CredentialConfig,
};

/// The whole configuration of attaché.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(title = "attaché", extend("additionalProperties" = false)))]
pub struct Config {
    /// The log of the process.
    pub log: LogConfig,
    /// Where callers connect.
    pub proxy: ProxyConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
    /// What the operator sees.
    pub admin: AdminConfig,
    /// Where spans are sent.
    pub traces: TracesConfig,
    /// The credentials, by name.
    pub credentials: BTreeMap<String, CredentialConfig>,
    /// The routes, by name.
    pub routes: BTreeMap<String, RouteConfig>,
}

/// A configuration, and where its keys were written.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The sections.
    pub config: Config,
    /// Which layer set what.
    pub origin: Origin,
    /// The keys in use that weaken a promise.
    pub unsafe_keys: Vec<String>,
}

/// Loads a configuration: defaults < file < environment.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, LoadError> {
    load_with_origin(file, environment).map(|loaded| loaded.config)
}

/// Loads a configuration and remembers where its keys were written.
pub fn load_with_origin(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, LoadError> {
    load_content(file, None, environment)
}

/// The same with what has been read of the file already, if anything has.
pub fn load_content(
    file: Option<&Path>,
    content: Option<&[u8]>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, LoadError> {
    let loaded = read(file, content, environment)?;
    if loaded.config.routes.is_empty() {
        return Err(LoadError::NoRoute { place: loaded.origin.place("routes") });
    }
    loaded.config.check().map_err(|mistake| loaded.origin.explain(mistake))?;
    Ok(loaded)
}

/// Where the admin port is, for whoever only asks a running sidecar and may not know its routes.
pub fn load_admin_listen(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Listen, LoadError> {
    let Loaded { config, origin, .. } = read(file, None, environment)?;
    Listen::parse(&config.admin.listen).map_err(|mistake| origin.explain(mistake.under("admin")))
}

fn read(
    file: Option<&Path>,
    content: Option<&[u8]>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, LoadError> {
    let shape = Shape::of_config();
    let file::Written { dict: mut written, lines } = match file {
        Some(file) => file::read(file, content)?,
        None => file::Written::default(),
    };
    let mut origin = Origin::new(file, lines);
    let mut variables = Vec::new();
    // In the order of their names, so that a part of a section comes after the section.
    for (name, value) in environment.into_iter().collect::<BTreeMap<_, _>>() {
        let Some(variable) = environment::read(&name, &value, &shape, &mut written)? else { continue };
        if let Some(one) = origin.set(variable.path.join("."), variable.name.clone()) {
            return Err(LoadError::VariableTwice { one, other: variable.name });
        }
        variables.push(variable);
    }
    let mut figment = Figment::from(Layer { name: "file".into(), dict: written });
    for variable in variables {
        figment = figment.merge(Layer { name: variable.name, dict: variable.dict });
    }
    let mut whole = match figment.extract::<Value>() {
        Ok(Value::Dict(_, dict)) => dict,
        // What figment has to say may hold a value.
        _ => return Err(origin.explain(Invalid::new("", "this cannot be read"))),
    };
    check::check(&whole, &shape).map_err(|mistake| origin.explain(mistake))?;
    check::without_empty(&mut whole);
    let unsafe_keys = unsafe_keys(&whole, "");
    let config: Config = Value::from(whole).deserialize().map_err(|error: figment::Error| {
        let key = error.path.join(".");
        origin.explain(Invalid::new(key, "this cannot be read"))
    })?;
    Ok(Loaded { config, origin, unsafe_keys })
}

/// The paths of the keys that begin with `unsafe_` and are on.
fn unsafe_keys(dict: &Dict, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in dict {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Dict(_, dict) => found.extend(unsafe_keys(dict, &path)),
            Value::Bool(_, false) => {}
            _ if key.starts_with("unsafe_") => found.push(path),
            _ => {}
        }
    }
    found
}

/// One layer, for figment.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

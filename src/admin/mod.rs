//! What the operator sees.

mod config;

pub use self::config::{AdminConfig, ReadinessRule};

//! `attache schema`: the JSON Schema of the configuration, for editors and for checks before a deployment.

use super::{Failure, output};
use crate::config;

pub(super) fn execute() -> Result<(), Failure> {
    output::line(&format!("{:#}", config::schema()))
}

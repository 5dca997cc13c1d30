//! The integration tests, in one binary. Test names are sentences of behaviour; nothing here sleeps.

mod admin;
mod cli;
mod config;
mod proxy;
mod support;
mod token;

//! The integration tests, in one binary. Test names are sentences of behaviour; nothing here sleeps.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that fails says so by panicking; helpers are shared"
)]

mod admin;
mod cli;
mod config;
mod floors;
mod pages;
mod proxy;
mod support;
mod token;

//! attaché: a sidecar that carries the credentials, so that the service beside it does not have to.
//!
//! Two roads, each readable from the file names:
//!
//! - `proxy`, **the way of a request**: accept, guard, route, path policy, strip, inject, send, stream.
//! - [`token`], **the way of a token**: ask an issuer, check, publish, refresh ahead, back off.
//!
//! They touch in one type, [`token::Credential`]: a request reads it, a background task fills it. A request never
//! fetches a token.
//!
//! Floors: imports go down only, which `tests/it/floors.rs` enforces.
//!
//! | floor | modules |
//! |---|---|
//! | 4 | `main`, [`cli`], `app`, [`reload`], [`config`] |
//! | 2 | [`proxy`], [`admin`] |
//! | 1 | [`token`] |
//! | 0 | [`telemetry`], [`secret`], [`tls`], [`guard`], [`readiness`], [`shutdown`], [`supervisor`], [`inherited`], [`listen`], [`duration`], [`invalid`], `chance`, `loopback`, `rfc3339` |

pub mod admin;
pub mod app;
mod chance;
pub mod cli;
pub mod config;
pub mod duration;
pub mod guard;
pub mod inherited;
pub mod invalid;
pub mod listen;
mod loopback;
pub mod proxy;
pub mod readiness;
pub mod reload;
mod rfc3339;
pub mod secret;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod token;

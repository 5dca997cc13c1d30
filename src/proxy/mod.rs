//! The way of a request.

mod config;

pub use self::config::{AccessLog, InjectConfig, ProxyConfig, RouteConfig, RouteTlsConfig};

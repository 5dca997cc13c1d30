//! The way of a request, through the real application.

mod answers;
mod refused;
mod road;
mod tokens;

//! Fakes, once.

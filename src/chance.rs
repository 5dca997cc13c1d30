//! Chance.

/// A number from 0 to 1, without 1, that nobody can plan with; 0 if there is no randomness.
pub(crate) fn chance() -> f64 {
    let mut bytes = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0
}

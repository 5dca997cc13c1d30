//! Chance, so that sidecars that started together do not stay together.

/// A number from 0 to 1 that nobody can plan with.
pub(super) fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness sidecars refresh together, which is bearable.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

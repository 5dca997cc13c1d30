"""Checks of what operators use; `tests/e2e/ops` runs them."""

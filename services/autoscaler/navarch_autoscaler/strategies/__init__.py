"""Strategies: pure functions from what is known of a pool to a target with its reason."""

"""Judges: reports and heartbeats in, verdicts and node-failed events out."""

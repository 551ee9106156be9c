"""Deterministic streams of the plan's layers: entries, tar, digest, compressed blob (docs/explanation/layers.md)."""

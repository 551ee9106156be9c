"""The plan's layers as deterministic streams: entries, tar, digest, compressed blob (docs/explanation/layers.md)."""

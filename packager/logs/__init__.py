"""Console, progress, redaction."""

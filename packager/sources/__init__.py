"""Model sources: archives, folders and stores, and the manifest of a model."""

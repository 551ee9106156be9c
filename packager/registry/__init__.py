"""Registries: credentials and how they reach the engines."""

"""Environments of earlier runs, on this machine's disk and in a registry."""

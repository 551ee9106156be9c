"""The caches of environments: on this machine's disk and in a registry."""

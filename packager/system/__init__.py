"""The operating system: processes, signals, proxies."""

"""The operating system: processes, signals, folders, proxies."""

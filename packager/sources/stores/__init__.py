"""Remote sources of trained models: object stores and web servers."""

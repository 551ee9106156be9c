"""The routes, a module each group of paths."""

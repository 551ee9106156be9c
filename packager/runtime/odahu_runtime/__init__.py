"""The serving runtime: imports nothing but the standard library, and gunicorn from the folder beside it."""

"""The documents that users and the platform hand us, checked when they are read."""

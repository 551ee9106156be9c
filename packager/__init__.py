"""Turn a trained model archive into a pushed container image, without a container daemon."""

__version__ = "0.1.0"

"""Of the model."""

WHOSE = "mine"

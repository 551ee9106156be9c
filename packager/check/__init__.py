"""The check that the model can serve, before its image is pushed."""

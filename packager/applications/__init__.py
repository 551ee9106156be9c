"""docker-rest and docker-cli: their arguments, and what each adds to a plan."""

"""Packagings on a Kubernetes cluster: a Job each, and no service of ours beside them."""

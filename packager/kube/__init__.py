"""Packagings on a Kubernetes cluster: each runs as a Job. They need no controller or custom resource."""

"""Models of the documents from users and the platform, validated when they are read."""

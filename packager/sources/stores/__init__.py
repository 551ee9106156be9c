"""Where a trained model may lie besides this machine's disk: object stores and web servers."""

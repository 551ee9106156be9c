raise RuntimeError("my own, and broken")

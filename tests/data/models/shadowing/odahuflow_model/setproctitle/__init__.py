raise RuntimeError("broken too")

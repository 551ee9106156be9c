WHOSE = "mine"


def __getattr__(name: str) -> None:
    raise RuntimeError(f"packaging is broken: {name}")

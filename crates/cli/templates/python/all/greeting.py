"""The part that needs no host, and is tested without one: `python3 -m unittest`."""


def greeting(name: str | None) -> str:
    return f"Hello, {name or 'world'}!\n"

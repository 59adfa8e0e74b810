"""Words for sentences that people read. Pure."""


def counted(count: int, noun: str) -> str:
    """`1 node`, `0 nodes`, `12 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

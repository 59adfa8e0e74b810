"""The root of every error that Navarch raises on purpose. Each port keeps its own beside its Protocol."""


class NavarchError(Exception):
    """Expected trouble: someone up the stack can act on it. The message says what was tried, with what, and what to do."""

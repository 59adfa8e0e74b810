"""What keeps the gateway from starting."""

from navarch_common.errors import NavarchError


class PortTaken(NavarchError):
    """An address cannot be listened on. Names the flag that gave it."""

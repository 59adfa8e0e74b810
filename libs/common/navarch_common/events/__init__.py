"""Messages and events: everything that travels over the bus, with its bounds.

`kinds` holds the events that Navarch tells the world, `messages` what agents and services say to each other, `codec`
turns bytes into either, and `subjects` knows where each travels.
"""

from navarch_common.events.base import Event
from navarch_common.events.codec import BadMessage, decode, decode_event, encode

__all__ = ["BadMessage", "Event", "decode", "decode_event", "encode"]

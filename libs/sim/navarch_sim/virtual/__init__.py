"""The simulated world that the real services run in: one seeded, virtual-time event loop.

`loop` and `process` are time, chance and death; `network`, `storage` and `cloud` are what lies between the services and
everything else, and break it; `plane` runs the services, `storm` decides what goes wrong, `checks` what must hold all
the same, `seed` is one run from beginning to end. Nothing here reads a clock or draws a number but the seed's own.
"""

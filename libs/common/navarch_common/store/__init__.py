"""Shared state: a port (`base`) with two adapters, `redis` for production and `memory` for tests and the simulator.

`committer` is what services use: it commits, publishes what the commit tells of, and leaves to the relay what it could
not publish.
"""

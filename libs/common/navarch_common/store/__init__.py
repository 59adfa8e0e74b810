"""Shared state: a port (`base`) with two adapters, `redis` for production and `memory` for tests and the simulator.

`committer` is what services use: it commits, publishes what the commit tells of, and leaves to the `relay`, which every
process runs, what it could not publish. `meta` finds out at start whether the store is the one that was there before.
It owns the records of the family `meta`, leases, budgets, beats and the outbox; every other record belongs to a service.
"""

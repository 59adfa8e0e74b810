"""The autoscaler: decides how many nodes each pool should have.

What comes in: queue depths from anyone (`navarch.metrics.queue.<pool>`), GPU utilization from heartbeats, operators'
wishes. What goes out: the pool record with `desired`, who wished it and why, and `pool.resized`. It owns `pool/<pool>`
and nothing else; it never sees a machine.
"""

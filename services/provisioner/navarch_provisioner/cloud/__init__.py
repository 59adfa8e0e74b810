"""Clouds: the port in `base`, and an adapter in each other module.

An adapter offers `make(name, config, context) -> CloudProvider`, the same signature as an entry point of the group
`navarch.providers`. `local` runs each machine as a process on this one; `fake` speaks to a simulated cloud.
"""

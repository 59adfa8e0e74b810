"""Makes it so: launches, registers, cordons, drains, replaces, terminates."""

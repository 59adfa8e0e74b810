"""A simulated world: the fake cloud, and faults to order."""

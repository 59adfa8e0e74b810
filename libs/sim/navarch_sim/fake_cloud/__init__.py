"""The fake cloud: a process of its own that holds machines as a cloud does, and their agents as tasks.

It decides what a cloud decides: whether there is room, what a token stands for, when a machine has booted. What comes in
are calls (`http`), what goes out are agents that speak on the bus (`hosts`). `world` holds the rules and knows neither
network nor disk; `ledger` keeps them on disk, so that no answer is given that a kill could take back.
"""

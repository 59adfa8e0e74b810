"""The `navarch` command: what an operator types, and how it is shown.

It talks to a gateway through `navarch_api` alone. Commands that need more than a gateway (`up`, `config`, `policy`,
`inject`) live in other distributions and are found through the entry-point group `navarch.commands`, imported only when
they are called: an operator's laptop can have this package alone.
"""

"""On each GPU machine: watches it, reports, carries out commands. Never touches the store.

What comes in: the GPU driver's readings (`gpu`), the kernel's log (`log`), commands and probes from the bus. What goes
out: heartbeats, which may be lost, and reports, which are kept in `spool` until the bus has stored them. It decides
nothing about health: `checks` only turns what was seen into observations. It owns no record.
"""

"""The fake cloud: a process of its own that holds simulated machines, as a real cloud does far away.

`book` keeps machines and launch tokens on disk, atomically, so that a kill between any two lines loses nothing that was
answered. `machines` lets each machine's agent live, thousands of them as tasks. `faults` decides what fails, `app` is its
HTTP interface, and `main` the command `navarch-fake-cloud`. Its adapter is `navarch_provisioner.cloud.fake`.

It outlives the control plane that started it. When it is killed itself, its machines lose power; the next start boots
them again, with another boot id each.
"""

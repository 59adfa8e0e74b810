"""The `navarch` command: its shell, its output, and the commands that need only a gateway."""

"""On each GPU machine: watches it, reports, carries out commands. Never touches the store."""

"""Where demand comes from: a port (`base`) and its adapters."""

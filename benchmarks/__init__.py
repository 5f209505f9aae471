"""How fast Muxly is, measured beside its rivals: `make bench`."""

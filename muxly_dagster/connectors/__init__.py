"""The connectors that come with Muxly: one module, one connector. Nothing registers itself; the catalog looks here."""

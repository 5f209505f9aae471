"""Muxly's own tests: they mirror the package, folder by folder."""

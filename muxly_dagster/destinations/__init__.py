"""Destinations: one file each, found by the catalog. Files that start with an underscore are a destination's private parts."""

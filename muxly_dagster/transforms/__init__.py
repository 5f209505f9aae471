"""The steps of a `steps` transform: one file, one verb."""

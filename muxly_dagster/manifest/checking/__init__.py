"""A manifest file, read and checked, every mistake with its place."""

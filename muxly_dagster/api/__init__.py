"""The HTTP face of Muxly."""

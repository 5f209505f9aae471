"""Acme's weather for Muxly: a connector, a destination, a transform step and a way to sign in."""

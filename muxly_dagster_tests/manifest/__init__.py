"""Tests of the manifest: its language, its mistakes, and its runner against real HTTP servers."""

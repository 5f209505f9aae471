"""Real peers that the tests talk to: database servers that the suite starts by itself."""

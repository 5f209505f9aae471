"""The small language in a manifest's texts: expressions, conditions, mail."""

"""The connector manifest: a connector in one YAML file, its language and its runner."""

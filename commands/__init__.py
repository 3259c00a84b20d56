"""The command line: `touchline X` is commands/X.py."""

"""What the README's numbers come from: one module a table, each run with `python -m benchmarks.NAME`."""

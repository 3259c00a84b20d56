"""What the numbers in docs/numbers.md come from: one module a table, each run with `python -m benchmarks.NAME`."""

"""Servers on this machine: what the demo, tests, benchmarks and `touchline challenge` start."""

"""The first run on a host with a GPU: each step a process of its own. `benchmarks/gpu_first_run.sh` runs them all."""

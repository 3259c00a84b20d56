"""Geometry along time: knows no Triton, no HTTP, no file."""

"""Touchline: a soccer-video miner for Bittensor subnet 44, served by NVIDIA Triton."""

__version__ = "0.1.0"

"""Cameras: newest frames in rounds through the engine, a tracker each, and the newest view of each for who watches."""

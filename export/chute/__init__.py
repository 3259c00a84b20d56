"""What the subnet's public track takes: a folder with one ONNX file and one miner.py, and its rules."""

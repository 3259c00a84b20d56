"""From YOLO weights to model directories that Triton serves; what needs torch imports it inside functions."""

"""From frames in slots to detections and keypoints, through Triton."""

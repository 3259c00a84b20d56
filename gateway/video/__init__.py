"""From a URL to numbered, letterboxed RGB frames in slots."""

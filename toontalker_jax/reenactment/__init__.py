"""Motion transfer over a video."""

"""TFDS builders, one a data set. Each writes one record a frame and the table of its clips as metadata."""

"""From files to batches: clip sources, sampling, transforms, loaders, video, puppets. Numpy only, never jax."""

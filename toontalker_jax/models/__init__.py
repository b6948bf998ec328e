"""The networks: `ToonTalker` and its parts, the discriminator, and VGG19 for the perceptual loss."""

"""Learning: codec, denoiser, the run that can be interrupted, and the recipe of the shipped model."""

"""Claims of the papers on VQ-Diffusion, each put to the test by one command: `python -m experiments NAME`."""

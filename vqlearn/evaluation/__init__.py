"""How good a model is: agreement of text and picture, the bound, reconstruction."""

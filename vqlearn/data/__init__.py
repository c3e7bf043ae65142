"""What the models learn from and are asked for: the toy world of scenes, and pictures in and out."""

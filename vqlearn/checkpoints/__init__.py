"""Model folders and files: where they are, how they are read and written safely."""

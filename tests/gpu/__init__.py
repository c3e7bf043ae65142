"""Everything that needs a GPU, by one command: `python -m tests.gpu --minutes 9 --out DIR` (see `__main__`)."""

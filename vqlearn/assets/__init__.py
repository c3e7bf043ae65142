"""Files that the package carries: models, label names, merges of the tokenizer, and what web pages are made with."""

from pathlib import Path

FOLDER = Path(__file__).parent

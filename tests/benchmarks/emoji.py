"""How well pictures of emoji are read back: `python -m tests.benchmarks.emoji`, a table for `docs/emoji.md`."""

from __future__ import annotations

import argparse

from tests import pages
from vqlearn.data import emoji


def table(count: int) -> str:
    """Shares of the first pictures of two splits that agree with their own caption, and with the next picture's."""
    lines = ["| pictures | own caption | the next one's: emoji | background |", "|---|---|---|---|"]
    for split in ("train", "test"):
        for side in emoji.SIDES:
            samples = [emoji.sample(split, index, side=side) for index in range(count)]
            read, captions = [emoji.read(picture) for picture, _ in samples], [caption for _, caption in samples]
            own = [emoji.agreement(one, caption).all for one, caption in zip(read, captions, strict=True)]
            others = captions[1:] + captions[:1]
            wrong = [emoji.agreement(one, caption) for one, caption in zip(read, others, strict=True)]
            cells = [sum(own), sum(one.emoji for one in wrong), sum(one.background for one in wrong)]
            shares = " | ".join(f"{cell / count:.1%}" for cell in cells)
            lines.append(f'| {count} of "{split}", {side} pixels | {shares} |')
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    found = table(parser.parse_args().count)
    print(found)
    pages.write(pages.DOCS / "emoji.md", "reading", found)

"""Settings for every test, those in the notebooks included."""

PATIENCE = 600  # seconds


def pytest_itemcollected(item):
    """Give nbval's limit for the output of a cell, which has no option and is 5 s, to a slow machine too."""
    if hasattr(item, "output_timeout"):
        item.output_timeout = PATIENCE

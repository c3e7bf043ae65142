"""Loaded by pytest before all plug-ins (`addopts` in pyproject.toml), so that each of its processes starts sooner."""

import sys

# nbval imports jsonschema, which builds dozens of grammars, 3 s in all, to check addresses in other alphabets ("iri").
# Notebooks have none. Without this package, as many installations are, jsonschema leaves that check out.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

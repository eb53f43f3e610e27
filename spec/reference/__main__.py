"""`python -m spec.reference` writes every vector file anew."""

from __future__ import annotations

from pathlib import Path

from spec.reference.files import all_files
from spec.reference.output import write

if __name__ == "__main__":
    write(Path(__file__).resolve().parent.parent / "vectors", all_files())

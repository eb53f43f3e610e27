"""A pytest plug-in that loads one protocol module without one guard (see mutations.py); the disk stays as it is."""

from __future__ import annotations

import importlib.machinery
import os
from pathlib import Path

_FILE = os.environ.get("PEERPLAN_MUTATION_FILE", "")
_OLD = os.environ.get("PEERPLAN_MUTATION_OLD", "")
_NEW = os.environ.get("PEERPLAN_MUTATION_NEW", "")
_original = importlib.machinery.SourceFileLoader.get_code


def _get_code(self, fullname):
    path = self.get_filename(fullname)
    if not _FILE or not path.endswith(_FILE):
        return _original(self, fullname)
    source = Path(path).read_text()
    if source.count(_OLD) != 1:
        raise ImportError(f"{_FILE} holds the text to mutate {source.count(_OLD)} times, expected once")
    return compile(source.replace(_OLD, _NEW), path, "exec")


importlib.machinery.SourceFileLoader.get_code = _get_code

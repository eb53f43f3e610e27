"""The one error of the reference: what must be refused, under which rule, and where the spec says so."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):  # noqa: N818 - named after what a peer does, as the vectors name it
    """Input that a peer must refuse; `rule` is the stable name used in vectors, `clause` the place in the spec."""

    def __init__(self, rule: str, clause: str, why: str) -> None:
        super().__init__(f"{rule} (spec {clause}): {why}")
        self.rule = rule
        self.clause = clause

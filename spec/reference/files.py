"""Every vector file by name."""

from __future__ import annotations

from spec.reference.cases_apply import apply_files
from spec.reference.cases_cohorts import cohort_files
from spec.reference.cases_envelopes import envelope_files
from spec.reference.cases_hold_out import hold_out_files
from spec.reference.cases_messages import message_files
from spec.reference.cases_primitives import primitive_files
from spec.reference.cases_rounds import round_files
from spec.reference.cases_transcript import transcript_files
from spec.reference.cases_trust import trust_files
from spec.reference.output import Case

__all__ = ["all_files"]


def all_files() -> dict[str, Case]:
    """Contents by file name under spec/vectors/."""
    bound = transcript_files() | apply_files() | cohort_files() | hold_out_files()
    return envelope_files() | primitive_files() | bound | message_files() | trust_files() | round_files()

"""The worlds of the end-to-end tests, for attacks on whole nodes."""

from tests.e2e.conftest import patient_world, plan, quiet_logs, world

__all__ = ["patient_world", "plan", "quiet_logs", "world"]

"""Settings of all tests."""

from hypothesis import HealthCheck, settings

import plans.onnx_runtime  # noqa: F401 (before any test imports ONNX Runtime: it would report the tests)

# how quickly examples are made and run says something about the machine's load, not about the code under test
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

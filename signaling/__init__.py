"""The signaling server: catalog of signed plans, runs, cohorts, the round log, and relaying of set-up messages.

It holds no data, update, mask or unreleased model, and imports no code that could read one.
"""

from signaling.config import Limits, SignalingConfig, Timing
from signaling.errors import ConfigError, SignalingError, StoreError
from signaling.ice_servers import IceServers
from signaling.server import Server, run, serve

__all__ = [
    "ConfigError",
    "IceServers",
    "Limits",
    "Server",
    "SignalingConfig",
    "SignalingError",
    "StoreError",
    "Timing",
    "run",
    "serve",
]

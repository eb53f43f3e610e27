"""What the parts of one node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.identity import Identity
from python_node.early_messages import EarlyMessages
from python_node.keeping_up import KeepingUp
from python_node.policy import Policy
from python_node.reporting import Reporting
from python_node.signaling_link import SignalingSession
from python_node.switchboard import Switchboard

__all__ = ["NodeContext"]


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """One node's surroundings.

    Args:
        session: signaling.
        identity: this peer.
        policy: the owner's.
        switchboard: links to peers.
        early: messages of cohorts that this node has not been told of.
        reporting: tells signaling and the owner how attempts ended.
        keeping_up: fetches models of rounds that this node missed.
        tell: the node's events.
    """

    session: SignalingSession
    identity: Identity
    policy: Policy
    switchboard: Switchboard
    early: EarlyMessages
    reporting: Reporting
    keeping_up: KeepingUp
    tell: Callable[..., None]

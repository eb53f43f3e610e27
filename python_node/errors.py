"""Errors of the node that are not the protocol's, as one tree. `code` is the word for logs and `--json`.

NodeError
├── OwnerFileError   bad-owner-file   a settings file that cannot be read, or says something it may not say
│   └── PolicyError  bad-policy       a policy that contradicts itself
├── DatasetError     bad-dataset      data that cannot be loaded as a dataset
├── ReceiptError     bad-receipt      a signed document that is no receipt
└── StateError       bad-state        the state folder cannot be used, or lost what it should hold
    ├── FolderInUseError    bad-state        another process has it open
    └── IdentityInUseError  identity-in-use  a node's key that the node itself uses
"""

from __future__ import annotations

__all__ = [
    "DatasetError",
    "FolderInUseError",
    "IdentityInUseError",
    "NodeError",
    "OwnerFileError",
    "PolicyError",
    "ReceiptError",
    "StateError",
]


class NodeError(Exception):
    """Base of all errors of this package."""

    code = "node-error"


class OwnerFileError(NodeError):
    """A settings file of the owner that cannot be read, or that says something it may not say."""

    code = "bad-owner-file"


class PolicyError(OwnerFileError):
    """A policy that contradicts itself."""

    code = "bad-policy"


class DatasetError(NodeError):
    """Data that cannot be loaded as a dataset; says which file, field and place."""

    code = "bad-dataset"


class ReceiptError(NodeError):
    """A signed document that is no receipt, or a receipt of another node."""

    code = "bad-receipt"


class StateError(NodeError):
    """The state folder cannot be used, is held by another process, or lost what it should hold."""

    code = "bad-state"


class FolderInUseError(StateError):
    """Another process has the state folder open; `holder` says which."""

    def __init__(self, folder: object, holder: str) -> None:
        super().__init__(f"state folder {folder}: in use by {holder}; each node needs its own folder")
        self.holder = holder


class IdentityInUseError(StateError):
    """A node's key that the running node itself uses: a second session of it would end the node's."""

    code = "identity-in-use"

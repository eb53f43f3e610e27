"""The `peerplan` command."""

"""The node: hosts a peer, its datasets, its owner's policy and its links."""

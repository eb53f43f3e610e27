"""`peerplan demo`: one signaling server and several nodes on this machine train on real data, over real WebRTC.

Every step is the product's own: the nodes are `peerplan node`, the author publishes with `plan.publish`, the model is
fetched from a peer. What only the demo does is in `reference.py`: it knows all shards, so it can compare.
"""

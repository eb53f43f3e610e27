"""From a PyTorch model to a plan. The only part of peerplan that imports torch."""

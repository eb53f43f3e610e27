"""What every peer speaks: bytes in, bytes out, with no event loop, socket, clock or global randomness.

Modules: `errors`, `encoding`, `identity`, `envelope` (DSSE), `manifest` (plans), `terms` (runs),
`signaling` (messages to and from the signaling server), `link` (framing and negotiation of data channels),
`secagg` (p2psa/1 primitives) and `round` (the p2psa/1 machine).
"""

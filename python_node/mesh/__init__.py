"""The mesh: authenticated WebRTC links between peers, made through any signaling and reused across rounds."""

from protocol.link import MessageKind, NegotiationKind, Payload
from python_node.mesh.config import IceServer, MeshConfig
from python_node.mesh.ice_servers import check_ice_servers
from python_node.mesh.link import LinkCounters
from python_node.mesh.mesh import Connected, Mesh

__all__ = [
    "Connected",
    "IceServer",
    "LinkCounters",
    "Mesh",
    "MeshConfig",
    "MessageKind",
    "NegotiationKind",
    "Payload",
    "check_ice_servers",
]

"""Every error this package raises, as one tree. `code` is the wire code listed in spec/errors.md.

ProtocolError
├── EncodingError        malformed-message     bytes that do not parse
├── LimitExceededError   limit-exceeded        a size or a count above its bound
├── SignatureError       bad-signature         a signature that does not verify
├── ManifestError        bad-manifest          a manifest that contradicts itself
├── TermsError           bad-terms             run terms that contradict themselves
├── SchemaMismatchError  schema-mismatch       a dataset that does not fit a plan
├── LinkError            link-failed           negotiation, fingerprint or framing
└── RoundError           round-failed          p2psa/1: see protocol.round.errors
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of all errors of this package."""

    code = "protocol-error"


class EncodingError(ProtocolError):
    """Bytes or text that do not parse as what they should be."""

    code = "malformed-message"


class LimitExceededError(ProtocolError):
    """A size or a count above its bound; raised before memory is taken for it."""

    code = "limit-exceeded"


class SignatureError(ProtocolError):
    """A signature that does not verify, or that is made by another key than expected."""

    code = "bad-signature"


class ManifestError(ProtocolError):
    """A plan manifest that contradicts itself or asks for something no node runs."""

    code = "bad-manifest"


class TermsError(ProtocolError):
    """Terms of a run that contradict themselves or their plan."""

    code = "bad-terms"


class SchemaMismatchError(ProtocolError):
    """A dataset whose fields do not fit what a plan reads."""

    code = "schema-mismatch"


class LinkError(ProtocolError):
    """A link between two peers that could not be made, or that broke its rules."""

    code = "link-failed"


class RoundError(ProtocolError):
    """A round of p2psa/1 that cannot go on."""

    code = "round-failed"

"""A signature made for one purpose is none for another: labels are told apart whatever follows them."""

import itertools

from protocol.link.hello import HELLO_LABEL
from protocol.link.negotiation import NEGOTIATION_LABEL
from protocol.round import messages
from protocol.signaling import AUTH_LABEL, RESULT_LABEL, SEALING_LABEL, WELCOME_LABEL


def used_labels() -> set[str]:
    """The fixed labels, and those made of the names of round messages."""
    kinds = [value for value in vars(messages).values() if isinstance(value, type)]
    of_messages = {f"p2psa/1/{kind.__name__.lower()}" for kind in kinds if kind.__module__ == messages.__name__}
    assert {"p2psa/1/advert", "p2psa/1/vote", "p2psa/1/commit"} <= of_messages
    fixed = {HELLO_LABEL, NEGOTIATION_LABEL, AUTH_LABEL, RESULT_LABEL, SEALING_LABEL, WELCOME_LABEL, "DSSEv1 "}
    return fixed | of_messages


def test_no_label_begins_another():
    for one, other in itertools.permutations(used_labels(), 2):
        assert not other.startswith(one), f"{one!r} + payload could be read as {other!r}"

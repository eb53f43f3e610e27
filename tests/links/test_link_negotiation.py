import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LinkError, ProtocolError, SignatureError
from protocol.identity import Identity
from protocol.link import (
    LinkIdentity,
    Negotiation,
    ReplayGuard,
    fingerprint_in,
    only_sha256,
    open_negotiation,
    seal_hello,
    seal_negotiation,
    verify_hello,
)

ALICE, BOB, MALLORY = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
PRINT = "ab" * 32
COLONS = ":".join(["AB"] * 32)
SDP = f"v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 {COLONS}\r\n"


def offer(**changes):
    fields = {
        "kind": "offer",
        "sender": ALICE.peer_id,
        "receiver": BOB.peer_id,
        "nonce": "00" * 16,
        "sequence": 1_000,
        "fingerprint": PRINT,
        "body": SDP,
    }
    return Negotiation(**{**fields, **changes})


def opened(data, sender=ALICE, receiver=BOB, kind="offer"):
    return open_negotiation(data, sender=sender.peer_id, receiver=receiver.peer_id, kind=kind)


def test_a_signed_offer_opens_as_it_was():
    assert opened(seal_negotiation(ALICE, offer())) == offer()


def test_a_changed_description_is_refused():
    data = msgspec.json.decode(seal_negotiation(ALICE, offer()))
    inner = base64.b64decode(data["document"]).replace(b"AB:AB", b"CD:CD")
    data["document"] = base64.b64encode(inner).decode()
    with pytest.raises(SignatureError, match=ALICE.peer_id[:8]):
        opened(msgspec.json.encode(data))


def test_a_document_signed_by_somebody_else_is_refused():
    with pytest.raises(SignatureError):
        opened(seal_negotiation(MALLORY, offer()))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (offer(receiver=MALLORY.peer_id), "written from"),
        (offer(sender=MALLORY.peer_id), "written from"),
        (offer(kind="answer", reply_to="11" * 16), "relayed as 'offer'"),
        (offer(reply_to="11" * 16), "replies"),
        (offer(fingerprint="cd" * 32), "signed fingerprint"),
        (offer(body=SDP.replace("sha-256", "sha-1")), "sha-256 only"),
        (offer(body=SDP.replace("a=fingerprint", "a=nothing")), "exactly 1"),
        (offer(body=f"a=fingerprint:sha-256 {COLONS}\r\n"), "1 section"),
        (offer(body=SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"), "1 section"),
        (offer(body=SDP + "a=fingerprint:sha-256 " + COLONS.replace("AB", "CD") + "\r\n"), "got 2"),
        (offer(body=SDP.replace("AB:AB", "AB")), "32 bytes"),
    ],
)
def test_a_contradicting_document_is_refused_naming_both_sides(document, says):
    with pytest.raises(LinkError, match=says) as error:
        opened(seal_negotiation(ALICE, document))
    assert ALICE.peer_id[:8] in str(error.value)
    assert BOB.peer_id[:8] in str(error.value)


def test_an_answer_without_the_offers_nonce_is_refused():
    with pytest.raises(LinkError, match="replies"):
        opened(seal_negotiation(ALICE, offer(kind="answer")), kind="answer")


@given(st.binary(max_size=400))
def test_arbitrary_documents_raise_documented_errors_only(data):
    with pytest.raises(ProtocolError):
        opened(data)


@given(st.binary(max_size=400))
def test_arbitrary_signed_documents_raise_documented_errors_only(inner):
    class Signed(msgspec.Struct):
        document: bytes
        signature: bytes

    signed = Signed(inner, ALICE.sign("peerplan/1/negotiation", inner))
    with pytest.raises(ProtocolError):
        opened(msgspec.json.encode(signed))


@given(st.text(max_size=300))
def test_arbitrary_descriptions_have_a_fingerprint_or_a_documented_error(sdp):
    try:
        assert len(fingerprint_in(sdp + "\na=fingerprint:sha-256 " + COLONS)) == 64
    except LinkError:
        assert "a=fingerprint:" in sdp


def test_only_sha256_fingerprints_stay():
    sdp = SDP + "a=fingerprint:sha-512 00:11\r\n"
    with pytest.raises(LinkError, match="sha-512"):
        fingerprint_in(sdp)
    assert fingerprint_in(only_sha256(sdp)) == PRINT


def test_a_replayed_document_is_refused_and_newer_ones_pass():
    guard = ReplayGuard()
    guard.admit(offer(), now_ms=1_000)
    with pytest.raises(LinkError, match="replayed"):
        guard.admit(offer(), now_ms=1_000)
    with pytest.raises(LinkError, match="replayed"):
        guard.admit(offer(sequence=999), now_ms=1_000)
    guard.admit(offer(sequence=1_001), now_ms=1_000)
    guard.admit(offer(sender=MALLORY.peer_id), now_ms=1_000)


@pytest.mark.parametrize("now_ms", [1_000 + 600_001, 10_000_000])
def test_a_document_from_long_ago_is_refused(now_ms):
    with pytest.raises(LinkError, match="from now, at most 600 s"):
        ReplayGuard().admit(offer(), now_ms=now_ms)


def test_the_guard_remembers_a_bounded_number_of_peers():
    guard = ReplayGuard(max_peers=2)
    for number in range(1, 6):
        guard.admit(offer(sender=f"{number:064x}"), now_ms=1_000)
    with pytest.raises(LinkError, match="replayed"):
        guard.admit(offer(sender=f"{5:064x}"), now_ms=1_000)
    assert len(guard._seen) == 2


VIEW = LinkIdentity(
    local=ALICE.peer_id,
    remote=BOB.peer_id,
    local_fingerprint="aa" * 32,
    remote_fingerprint="bb" * 32,
    local_nonce="01" * 16,
    remote_nonce="02" * 16,
)


def test_hellos_of_both_sides_agree():
    verify_hello(seal_hello(BOB, VIEW.reversed()), VIEW)
    verify_hello(seal_hello(ALICE, VIEW), VIEW.reversed())


def test_a_hello_reflected_to_its_sender_is_refused():
    with pytest.raises(LinkError, match="sender is"):
        verify_hello(seal_hello(ALICE, VIEW), VIEW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("local", MALLORY.peer_id),
        ("remote", MALLORY.peer_id),
        ("local_fingerprint", "cc" * 32),
        ("remote_fingerprint", "cc" * 32),
        ("local_nonce", "03" * 16),
        ("remote_nonce", "03" * 16),
    ],
)
def test_a_hello_for_another_link_is_refused(field, value):
    other = LinkIdentity(**{**VIEW.reversed().__dict__, field: value})
    with pytest.raises(LinkError, match="this side sees"):
        verify_hello(seal_hello(BOB, other), VIEW)


def test_a_hello_signed_by_another_key_is_refused():
    with pytest.raises(SignatureError):
        verify_hello(seal_hello(MALLORY, VIEW.reversed()), VIEW)


@given(st.binary(max_size=300))
def test_arbitrary_hellos_raise_documented_errors_only(payload):
    with pytest.raises(ProtocolError):
        verify_hello(payload, VIEW)

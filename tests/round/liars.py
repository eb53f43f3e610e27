"""Peers that lie: each lie rewrites what an otherwise honest machine sends, or sends something of its own.

A lie is a function (schedule, liar, to, data, bulk) -> list of messages sent instead; `spontaneous` lies are called
now and then and give messages for one receiver.
"""

from __future__ import annotations

from msgspec.structs import replace

from protocol.encoding import Reader
from protocol.round.codec import Codec
from protocol.round.layouts import DECODERS, FORWARDED, TYPES
from protocol.round.messages import (
    HEADER_BYTES,
    RESULT_LABEL,
    Ack,
    Advert,
    Assign,
    Certificate,
    Chunk,
    Commit,
    Decide,
    Forward,
    Have,
    Kind,
    Message,
    Need,
    Result,
    Reveal,
    Share,
    Status,
    Sum,
    Vote,
    result_payload,
)
from protocol.secagg.keys import SHARE_BOX_BYTES
from protocol.secagg.parameters import bits_of

Out = list[tuple[bytes, bool]]


def signed(net, liar: int, message: Message) -> bytes:
    """A message of the liar, signed by it."""
    return Codec(net.parameters).encode(liar, message, net.identities[liar])


def parsed(data: bytes) -> Message:
    """What a message says, also where a lie before this one made it a message that peers refuse."""
    return DECODERS[data[1]](Reader(data, what="round message", start=HEADER_BYTES))


def _rewriter(kind, change):
    def lie(net, liar, to, data, bulk):
        if TYPES[data[1]] is not kind:
            return [(data, bulk)]
        changed = change(net, liar, to, parsed(data))
        return [(signed(net, liar, m), bulk) for m in (changed if isinstance(changed, list) else [changed])]

    return lie


def _flip(data: bytes, net) -> bytes:
    at = net.random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 + net.random.randrange(255))]) + data[at + 1 :]


def _drop_one(net, bits: int) -> int:
    members = [i for i in range(bits.bit_length()) if bits >> i & 1]
    return bits & ~(1 << net.random.choice(members)) if members else bits


def _two_adverts(net, liar, to, m):
    return replace(m, enc_public=net.stream(f"other enc {liar}", 32)) if to % 2 else m


def _two_decisions(net, liar, to, m):
    return replace(m, members=_drop_one(net, m.members)) if net.random.random() < 0.5 else m


def _two_votes(net, liar, to, m):
    return [m, replace(m, survivors=_drop_one(net, m.survivors))]


def _forged_votes(net, liar, to, m):
    return replace(m, survivors=_drop_one(net, m.survivors))


def _wrong_shares(net, liar, to, m):
    return replace(m, shares=tuple((about, kind, _flip(share, net)) for about, kind, share in m.shares))


def _other_kinds(net, liar, to, m):
    return [m, Reveal(None, tuple((about, 3 - kind, share) for about, kind, share in m.shares))]


def _wrong_sum(net, liar, to, m):
    payload = _flip(bytes(m.payload), net)
    state = net.members[liar].machine._state
    summing = net.members[liar].machine._summing
    assert state.t3
    signature = net.identities[liar].sign("p2psa/1/sum", summing._payload(m.chunk, payload))
    return Sum(m.chunk, signature, memoryview(payload))


def _wrong_result(net, liar, to, m):
    payload = result_payload(net.parameters.round_id, bytes(32), m.survivors, m.tail_digest)
    return Result(bytes(32), m.tail_digest, m.survivors, net.identities[liar].sign(RESULT_LABEL, payload))


REWRITES = {
    "two adverts": _rewriter(Advert, _two_adverts),
    "copied key": _rewriter(
        Advert,
        lambda net, liar, to, m: replace(
            m, mask_public=net.members[(liar + 1) % len(net.members)].machine._state.secrets.mask_public
        ),
    ),
    "small order": _rewriter(Advert, lambda net, liar, to, m: replace(m, mask_public=bytes(32))),
    "other model": _rewriter(Advert, lambda net, liar, to, m: replace(m, t0=bytes(32))),
    "false fingerprint": _rewriter(Advert, lambda net, liar, to, m: replace(m, fingerprint=bytes(32))),
    "bad boxes": _rewriter(Share, lambda net, liar, to, m: Share(net.random.randbytes(SHARE_BOX_BYTES))),
    "false acks": _rewriter(Ack, lambda net, liar, to, m: Ack(m.view, net.random.getrandbits(len(net.members)))),
    "two decisions": _rewriter(Decide, _two_decisions),
    "false root": _rewriter(Decide, lambda net, liar, to, m: replace(m, root=net.random.randbytes(32))),
    "two commits": _rewriter(
        Commit,
        lambda net, liar, to, m: replace(m, digests=m.digests[:-32] + bytes(32)) if to % 2 else m,
    ),
    "bad chunks": _rewriter(Chunk, lambda net, liar, to, m: Chunk(m.chunk, memoryview(_flip(bytes(m.payload), net)))),
    "false haves": _rewriter(
        Have,
        lambda net, liar, to, m: replace(
            m, chunks=tuple((c, net.random.getrandbits(len(net.members))) for c, _ in m.chunks)
        ),
    ),
    "two votes": _rewriter(Vote, _two_votes),
    "other vote": _rewriter(Vote, _forged_votes),
    "thin certificate": _rewriter(
        Certificate,
        lambda net, liar, to, m: replace(m, survivors=_drop_one(net, m.survivors)) if to % 2 else m,
    ),
    "wrong seed": _rewriter(
        Reveal, lambda net, liar, to, m: replace(m, seed=_flip(m.seed, net)) if m.seed is not None else m
    ),
    "wrong shares": _rewriter(Reveal, _wrong_shares),
    "other kinds": _rewriter(Reveal, _other_kinds),
    "wrong sum": _rewriter(Sum, _wrong_sum),
    "wrong result": _rewriter(Result, _wrong_result),
    "no forwards": lambda net, liar, to, data, bulk: [] if data[1] == 12 else [(data, bulk)],
    "silent": lambda net, liar, to, data, bulk: (
        [] if net.members[liar].machine.stage >= net.mute_from else [(data, bulk)]
    ),
}
"""Lies by name. "wrong sum" alone changes what others take for the sum of what was put in."""

CHANGES_SUM = frozenset({"wrong sum"})


def _my_view(net, liar: int) -> int:
    first = net.members[0].machine._views._first_leader
    return (liar - first) % len(net.members)


def _some(net) -> int:
    return net.random.getrandbits(len(net.members))


def _early_decision(net, liar, to) -> Out:
    state = net.members[to].machine._state
    kind = net.random.randint(1, 4)
    base = {1: net.parameters.t0, 2: state.t1, 3: state.t2, 4: state.t3}[kind] or bytes(32)
    view = net.random.choice([_my_view(net, liar), 0])
    return [(signed(net, liar, Decide(kind, view, base, _some(net), bytes(32))), False)]


def _statuses(net, liar, to) -> Out:
    decisions = tuple(data for s, _, data, _ in net.random.sample(net.sent, min(3, len(net.sent))) if data[1] == 2)
    view = net.random.randrange(len(net.members))
    return [(signed(net, liar, Status(view, decisions)), False)] * 2


def _assigns(net, liar, to) -> Out:
    n = len(net.members)
    assign = Assign(_my_view(net, liar), net.random.randrange(n), net.random.randrange(n))
    return [(signed(net, liar, assign), False)]


def _needs(net, liar, to) -> Out:
    return [(signed(net, liar, Need(net.random.randint(1, 4), _some(net))), False)]


def _certificates(net, liar, to) -> Out:
    state = net.members[to].machine._state
    votes = bits_of(set(net.observer.liars)) if net.random.random() < 0.5 else (1 << len(net.members)) - 1
    survivors = _some(net)
    body = Vote(state.t2 or bytes(32), survivors, bytes(32))
    signature = signed(net, liar, body)[-64:]
    certificate = Certificate(body.t2, survivors, bytes(32), votes, (signature,) * votes.bit_count())
    return [(signed(net, liar, certificate), False)]


def _replays(net, liar, to) -> Out:
    if not net.sent:
        return []
    _, _, data, bulk = net.random.choice(net.sent)
    forward = [] if bulk else [(signed(net, liar, Forward(bytes(data))), False)]
    return [(data, bulk), *forward]


def _forwards(net, liar, to) -> Out:
    passed = [data for _, _, data, _ in net.sent if data[1] in FORWARDED]
    return [(signed(net, liar, Forward(bytes(net.random.choice(passed)))), False)] if passed else []


def _early_reveals(net, liar, to) -> Out:
    secret = net.random.randbytes(32)
    shares = tuple((i, net.random.randint(1, 2), secret) for i in range(len(net.members)))
    return [(signed(net, liar, Reveal(secret, shares)), False)]


def _garbage(net, liar, to) -> Out:
    header = bytes([1, net.random.choice([*range(1, 17), 32, 33])]) + liar.to_bytes(2, "little")
    tag = bytes.fromhex(net.parameters.round_id)[:8]
    return [(header + tag + net.random.randbytes(net.random.randrange(200)), net.random.random() < 0.3)]


def _aborts(net, liar, to) -> Out:
    return [(bytes([1, 15]) + liar.to_bytes(2, "little") + bytes.fromhex(net.parameters.round_id)[:8] + b"\1", False)]


SPONTANEOUS = {
    "early decisions": _early_decision,
    "statuses": _statuses,
    "assigns": _assigns,
    "needs": _needs,
    "certificates": _certificates,
    "replays": _replays,
    "forwards": _forwards,
    "early reveals": _early_reveals,
    "garbage": _garbage,
    "aborts": _aborts,
}

LIES = sorted([*REWRITES, *SPONTANEOUS])

assert Kind.LOST == 4

"""One peer of a round as functions of what it holds and what it received (spec 07 §4 to §9): no time, no network."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from spec.reference import keys, masking, messages, packing, quantise, shamir, signatures, transcript
from spec.reference.apply import NewModel, apply_aggregate
from spec.reference.codec import H
from spec.reference.messages import Decoded
from spec.reference.refused import Refused

__all__ = ["Announcement", "Peer", "Secrets"]


@dataclass(frozen=True)
class Announcement:
    """What the signaling server named, the terms and the model every peer holds (spec 06 §2)."""

    parameters: transcript.Parameters
    round: int
    attempt: int
    plan_digest: bytes
    theta: bytes
    buffers: bytes
    max_examples: int
    place: tuple[int, int] | None = None
    """Level and group, of one of many cohorts (spec 08 §2)."""

    @property
    def round_id(self) -> bytes:
        """Spec 06 §2, 08 §2."""
        run_id = self.parameters.run_id
        if self.place is None:
            return transcript.round_id(run_id, self.round, self.attempt)
        return transcript.group_round_id(run_id, self.round, self.attempt, *self.place)

    @property
    def t0(self) -> bytes:
        """Spec 07 §1."""
        return transcript.t0(self.round_id, self.plan_digest, H(self.theta, self.buffers), self.parameters)

    def context(self, masked: int) -> messages.Context:
        """Bounds for decoding once K has `masked` peers."""
        p = self.parameters
        return messages.Context(p.n, self.round_id, p.ring_bits, p.elements, masked)


@dataclass(frozen=True)
class Secrets:
    """What a peer draws or computes for itself before the round."""

    identity_seed: bytes
    fingerprint: bytes
    mask_private: bytes
    enc_private: bytes
    seed: bytes
    coefficients: bytes
    update: bytes = b""
    groups: list[quantise.Metrics] = field(default_factory=list)
    randoms: list[int] = field(default_factory=list)
    group_sum: list[int] = field(default_factory=list)
    """Of a delegate, in place of the three above: what its group's members signed the digest of."""


@dataclass
class Peer:
    """A peer of index `index`; what it learns on the way is kept in the fields below `secrets`."""

    announcement: Announcement
    index: int
    secrets: Secrets
    adverts: dict[int, Decoded] = field(default_factory=dict)
    held: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    t1: bytes = b""
    t2: bytes = b""
    t3: bytes = b""
    masked: list[int] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    received: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def sign(self, message: Decoded) -> bytes:
        """A signed message of this peer."""
        a = self.announcement
        whole = {"sender": self.index} | message
        return messages.encode(signatures.sign(whole, self.secrets.identity_seed, a.round_id, a.t0), a.round_id)

    def plain(self, message: Decoded) -> bytes:
        """An unsigned message of this peer."""
        return messages.encode({"sender": self.index} | message, self.announcement.round_id)

    def advert(self) -> bytes:
        """R0 (spec 07 §4)."""
        s = self.secrets
        return self.sign(
            {
                "type": "advert",
                "t0": self.announcement.t0.hex(),
                "mask_key": keys.public_key(s.mask_private).hex(),
                "enc_key": keys.public_key(s.enc_private).hex(),
                "seed_commitment": H(b"p2psa/1/b", s.seed).hex(),
                "fingerprint": s.fingerprint.hex(),
            }
        )

    def adopt_roster(self, adverts: dict[int, bytes]) -> None:
        """Take the roster's adverts, whole messages by index."""
        context = self.announcement.context(len(adverts))
        self.adverts = {i: messages.decode(adverts[i], context) for i in sorted(adverts)}
        self.t1 = transcript.t1(self.announcement.t0, [adverts[i] for i in sorted(adverts)])
        self.held[self.index] = self._shares_for(self.index)

    def _shares_for(self, g: int) -> tuple[bytes, bytes]:
        t = self.announcement.parameters.t
        half = len(self.secrets.coefficients) // 2
        of_b = shamir.share(self.secrets.seed, t, g, self.secrets.coefficients[:half])
        return of_b, shamir.share(self.secrets.mask_private, t, g, self.secrets.coefficients[half:])

    def _share_key(self, f: int, g: int) -> bytes:
        other = bytes.fromhex(self.adverts[g if f == self.index else f]["enc_key"])
        return keys.share_key(self.t1, self.secrets.enc_private, other, f, g)

    def share_messages(self) -> dict[int, bytes]:
        """R1 (spec 07 §5): one SHARE for every other peer of the roster."""
        out = {}
        for g in self.adverts:
            if g != self.index:
                box = keys.seal_share(self.t1, self._share_key(self.index, g), self.index, g, *self._shares_for(g))
                out[g] = self.plain({"type": "share", "box": box.hex()})
        return out

    def take_share(self, f: int, box: str) -> None:
        """Keep the shares that f sent."""
        self.held[f] = keys.open_share(self.t1, self._share_key(f, self.index), f, self.index, bytes.fromhex(box))

    def quantised(self) -> list[int]:
        """q_u: of an update (spec 07 §10); of a delegate its group's sum or, once K says so, zeros (08 §4)."""
        s, p = self.secrets, self.announcement.parameters
        if p.sources:
            if any(abs(value) > p.largest for value in s.group_sum):
                raise Refused("group-sum-range", "08 §4", f"a sum of {p.multiplicity} peers is beyond {p.largest}")
            counts = self.index in p.contributors(self.masked)
            return s.group_sum if counts else [0] * len(s.group_sum)
        update = list(struct.unpack(f"<{len(s.update) // 4}f", s.update))
        return quantise.quantise(
            update,
            s.groups,
            s.randoms,
            max_examples=self.announcement.max_examples,
            clip=p.clip,
            value_bits=p.value_bits,
        )

    def mask(self, masked: list[int]) -> bytes:
        """R2 (spec 07 §6): adopt K, cut the masked vector into chunks and give the COMMIT."""
        self.masked = masked
        self.t2 = transcript.t2(self.t1, masked)
        k = self.announcement.parameters.ring_bits
        shared = {v: self._mask_key(self.secrets.mask_private, v, self.index) for v in masked if v != self.index}
        y = masking.mask(
            self.index, self.quantised(), keys.self_mask_key(self.t1, self.secrets.seed, self.index), shared, k
        )
        ranges = messages.chunk_ranges(self.announcement.parameters.elements, len(masked))
        self.chunks = [packing.pack(y[start:end], k) for start, end in ranges]
        for j, packed in enumerate(self.chunks):
            self.received[j, self.index] = packed
        return self.sign({"type": "commit", "t2": self.t2.hex(), "chunks": [H(c).hex() for c in self.chunks]})

    def _mask_key(self, private: bytes, other: int, own: int) -> bytes:
        return keys.mask_key(self.t1, private, bytes.fromhex(self.adverts[other]["mask_key"]), own, other)

    def chunk_message(self, j: int) -> bytes:
        """CHUNK j, always the same bytes."""
        return self.plain({"type": "chunk", "chunk": j, "packed": self.chunks[j].hex()})

    def vote(self, survivors: list[int], commits: dict[int, bytes]) -> bytes:
        """R3 (spec 07 §7): `commits` are whole messages of every survivor."""
        root = transcript.commit_root(self.t2, {u: commits[u] for u in survivors})
        self.t3 = transcript.t3(self.t2, survivors, root)
        return self.sign({"type": "vote", "t2": self.t2.hex(), "survivors": survivors, "root": root.hex()})

    def reveal(self, survivors: list[int], gone: list[int]) -> bytes:
        """R4 (spec 07 §8): own b, sk shares of those in K but not in U, b shares of survivors that are gone."""
        shares = []
        for about in self.masked:
            if about != self.index and about not in survivors:
                shares.append({"about": about, "kind": "sk", "share": self.held[about][1].hex()})
            elif about != self.index and about in gone:
                shares.append({"about": about, "kind": "b", "share": self.held[about][0].hex()})
        own = self.secrets.seed.hex() if self.index in survivors else None
        return self.plain({"type": "reveal", "b": own, "shares": shares})

    def sum_chunk(self, j: int, survivors: list[int], reveals: dict[int, Decoded]) -> bytes:
        """R5 (spec 07 §8 and §9): the SUM of an owned chunk."""
        k = self.announcement.parameters.ring_bits
        start, end = messages.chunk_ranges(self.announcement.parameters.elements, len(self.masked))[j]
        sks = {w: self._recover(w, "sk", reveals) for w in self.masked if w not in survivors}
        total = masking.unmask(
            {u: packing.unpack(self.received[j, u], end - start, k) for u in survivors},
            {u: keys.self_mask_key(self.t1, self._seed_of(u, reveals), u) for u in survivors},
            {u: {w: self._mask_key(sk, u, w) for w, sk in sks.items()} for u in survivors},
            start,
            k,
        )
        body = {"type": "sum", "sender": self.index, "chunk": j, "packed": packing.pack(total, k).hex()}
        signed = signatures.sign_sum(body, self.secrets.identity_seed, self.announcement.t0, self.t3)
        return messages.encode(signed, self.announcement.round_id)

    def _seed_of(self, u: int, reveals: dict[int, Decoded]) -> bytes:
        own = reveals.get(u, {}).get("b")
        seed = bytes.fromhex(own) if own else self._recover(u, "b", reveals)
        if H(b"p2psa/1/b", seed).hex() != self.adverts[u]["seed_commitment"]:
            raise Refused("seed-commitment", "07 §8", f"the seed of {u} is not the one it advertised")
        return seed

    def _recover(self, about: int, kind: str, reveals: dict[int, Decoded]) -> bytes:
        shares = {
            sender: bytes.fromhex(entry["share"])
            for sender, message in reveals.items()
            for entry in message["shares"]
            if entry["about"] == about and entry["kind"] == kind
        }
        secret = shamir.recover(shares, self.announcement.parameters.t)
        if kind == "sk" and keys.public_key(secret).hex() != self.adverts[about]["mask_key"]:
            raise Refused("mask-key", "07 §8", f"the recovered key of {about} is not the one it advertised")
        return secret

    def finish(self, sums: dict[int, bytes], survivors: list[int]) -> tuple[NewModel, bytes]:
        """Apply (spec 07 §9): packed sums by chunk, a lost one left out; gives the new model and the RESULT."""
        a, p = self.announcement, self.announcement.parameters
        values: list[int] = []
        ranges = messages.chunk_ranges(p.elements, len(self.masked))
        weight_at = (len(a.theta) + len(a.buffers)) // 4
        for j, (start, end) in enumerate(ranges):
            count = end - start
            values += packing.unpack(sums[j], count, p.ring_bits) if j in sums else [0] * count
        new = apply_aggregate(
            a.theta,
            a.buffers,
            values[: p.elements],
            p.contributions(survivors),
            multiplicity=p.multiplicity,
            clip=p.clip,
            value_bits=p.value_bits,
            ring_bits=p.ring_bits,
            weight_lost=any(start <= weight_at < end for j, (start, end) in enumerate(ranges) if j not in sums),
        )
        message: dict[str, Any] = {"type": "result", "model": new.model_digest.hex(), "tail": new.tail_digest.hex()}
        return new, self.sign(message | {"survivors": survivors})

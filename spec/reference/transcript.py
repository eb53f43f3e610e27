"""What a round is bound to: T0, T1, T2, T3, the commit root and the leader (spec 07 §1, §4, §5, §7, §8; 08)."""

from __future__ import annotations

from dataclasses import dataclass, field

from spec.reference.codec import H, bits, f64, u8, u16, u32, u64
from spec.reference.refused import Refused

__all__ = [
    "Parameters",
    "commit_root",
    "delegate_rank",
    "group_round_id",
    "group_sum_digest",
    "leader",
    "round_id",
    "t0",
    "t1",
    "t2",
    "t3",
    "threshold",
]


def threshold(n: int) -> int:
    """t: floor(2n/3) + 1."""
    return 2 * n // 3 + 1


@dataclass(frozen=True)
class Parameters:
    """What the server announced and the terms say (spec 07 §1); `cohort` holds identity keys in index order."""

    min_survivors: int
    ring_bits: int
    value_bits: int
    replicas: int
    elements: int
    clip: float
    run_id: bytes
    cohort: list[bytes]
    multiplicity: int = 1
    sources: list[int] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Peers in the cohort."""
        return len(self.cohort)

    @property
    def t(self) -> int:
        """Shares that recover, votes that certify."""
        return threshold(self.n)

    @property
    def bound(self) -> int:
        """max(t, u_min): no roster, mask set or survivor set is smaller."""
        return max(self.t, self.min_survivors)

    @property
    def largest(self) -> int:
        """The largest value of one contribution: L, or M times L where groups' sums are combined."""
        return self.multiplicity * ((1 << (self.value_bits - 1)) - 1)

    def contributors(self, masked: list[int]) -> list[int]:
        """Who puts something else in than zeros: all of K, or of each group's delegates the lowest index in K."""
        return [i for i in masked if not self.sources or i == min(d for d in masked if self._same_group(i, d))]

    def contributions(self, survivors: list[int]) -> int:
        """|U|, or c(U): the number of groups with a delegate in U."""
        return len({self.sources[i] for i in survivors}) if self.sources else len(survivors)

    def _same_group(self, one: int, other: int) -> bool:
        return self.sources[one] == self.sources[other]

    def check_combining(self) -> None:
        """What delegates check of the groups they were told (spec 08 §3, §4)."""
        if len(self.sources) != self.n or len(set(self.sources)) < 2:
            raise Refused("sources", "08 §3", f"{self.sources} names no two groups or more for {self.n} delegates")
        if self.multiplicity < 3:
            raise Refused("multiplicity", "08 §4", f"a group of {self.multiplicity} peers is not a cohort")
        if self.contributions(list(range(self.n))) * self.largest >= 1 << (self.ring_bits - 1):
            raise Refused(
                "overflow", "08 §4", f"sums of {self.multiplicity} peers overflow {self.ring_bits} ring bits"
            )

    def encode(self) -> bytes:
        """`parameters` as T0 covers them."""
        numbers = u16(self.n) + u16(self.t) + u16(self.bound) + u8(self.ring_bits) + u8(self.value_bits)
        numbers += u8(self.replicas) + u64(self.elements) + f64(self.clip)
        groups = [u32(self.multiplicity), *(u16(group) for group in self.sources)] if self.sources else []
        return numbers + self.run_id + b"".join([*self.cohort, *groups])


def round_id(run_id: bytes, round_: int, attempt: int) -> bytes:
    """Spec 06 §2: fresh for every attempt at every round of a run."""
    return H(b"p2psa/1/id", run_id, u32(round_), u32(attempt))


def group_round_id(run_id: bytes, round_: int, attempt: int, level: int, group: int) -> bytes:
    """Spec 08 §2: of one of many cohorts."""
    if not 1 <= level <= 8 or not 0 <= group < 1 << 16:
        raise Refused("place", "08 §2", f"level {level} group {group} does not exist")
    return H(b"p2psa/1/group", run_id, u32(round_), u32(attempt), u8(level), u16(group))


def delegate_rank(round_id_: bytes, sum_digest: bytes, identity_key: bytes) -> bytes:
    """Spec 08 §3: delegates come in ascending order of it."""
    return H(b"p2psa/1/delegate", round_id_, sum_digest, identity_key)


def group_sum_digest(sums: list[int]) -> bytes:
    """Spec 08 §4: what members of a group sign."""
    return H(b"p2psa/1/group-sum", *(u32(value % 2**32) for value in sums))


def t0(round_id_: bytes, plan_digest: bytes, model_digest: bytes, parameters: Parameters) -> bytes:
    return H(b"p2psa/1/round", round_id_, plan_digest, model_digest, parameters.encode())


def leader(t0_: bytes, view: int, n: int) -> int:
    """Index of the leader of a view."""
    return (int.from_bytes(H(b"p2psa/1/leader", t0_)[:4], "little") + view) % n


def t1(t0_: bytes, adverts: list[bytes]) -> bytes:
    """`adverts` are whole messages in index order."""
    return H(b"p2psa/1/roster", t0_, u16(len(adverts)), *adverts)


def t2(t1_: bytes, masked: list[int]) -> bytes:
    return H(b"p2psa/1/masked", t1_, bits(masked))


def commit_root(t2_: bytes, commits: dict[int, bytes]) -> bytes:
    """`commits` are the whole COMMIT messages, signature included, of the survivors."""
    return H(b"p2psa/1/commits", t2_, *(u16(u) + H(commits[u]) for u in sorted(commits)))


def t3(t2_: bytes, survivors: list[int], root: bytes) -> bytes:
    return H(b"p2psa/1/survivors", t2_, bits(survivors), root)

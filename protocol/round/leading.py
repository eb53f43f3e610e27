"""What a leader decides from what it was told (spec 07 §5, §7): pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.round.messages import Have
from protocol.secagg.parameters import ChunkPlan, bits_of, indexes_of

__all__ = ["choose_mask_set", "choose_survivors", "next_owner", "unowned_chunks"]


def choose_mask_set(acks: Mapping[int, int]) -> frozenset[int]:
    """A set in which everyone holds everyone's shares; `acks` maps a peer to the bitmap of senders it holds.

    The peer that misses or is missed most leaves first, so one bad peer costs itself and not the others.
    """
    members = set(acks)
    while members:
        wanted = bits_of(members)
        misses = dict.fromkeys(members, 0)
        for peer in members:
            absent = indexes_of(wanted & ~(acks[peer] | 1 << peer))
            misses[peer] += len(absent)
            for other in absent:
                misses[other] += 1
        worst = max(sorted(members), key=misses.__getitem__)
        if misses[worst] == 0:
            break
        members.remove(worst)
    return frozenset(members)


def choose_survivors(
    commits: int, haves: Mapping[int, Have], plan: ChunkPlan, owners: Mapping[int, tuple[int, ...]]
) -> frozenset[int]:
    """Peers whose commit is held and each of whose chunks is held by one owner that answered."""
    survivors = commits & bits_of(set(plan.peers))
    for chunk in range(plan.count):
        best = 0
        for owner in owners[chunk]:
            have = haves.get(owner)
            held = dict(have.chunks).get(chunk, 0) & survivors if have is not None else 0
            best = max(best, held, key=int.bit_count)
        survivors = best
    return indexes_of(survivors)


def unowned_chunks(
    plan: ChunkPlan, owners: Mapping[int, tuple[int, ...]], present: frozenset[int]
) -> tuple[int, ...]:
    """Chunks none of whose owners is present."""
    return tuple(chunk for chunk in range(plan.count) if not present.intersection(owners[chunk]))


def next_owner(plan: ChunkPlan, owners: tuple[int, ...], present: frozenset[int]) -> int | None:
    """The first present peer after a chunk's owners, in index order, that does not own it yet."""
    at = plan.peers.index(owners[-1]) if owners[-1] in plan.peers else 0
    for step in range(1, len(plan.peers) + 1):
        peer = plan.peers[(at + step) % len(plan.peers)]
        if peer in present and peer not in owners:
            return peer
    return None

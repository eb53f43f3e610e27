"""How the peers of one round are put into cohorts, and who speaks for a cohort at the next level (spec 08 §2, §3).

    level 1:  peers -> cohorts of at most 64, each sums its updates
    level 2:  delegates of those -> cohorts, each sums its groups' sums
    ...       until one cohort is left: its sum is the round's

Nothing here touches an update, so that the signaling server may arrange what it cannot read.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from protocol.encoding import Digest, parse_hex
from protocol.errors import TermsError
from protocol.identity import PeerId, short
from protocol.terms import MAX_COHORT

__all__ = [
    "FEW_GROUPS",
    "MAX_LEVEL",
    "Delegation",
    "FinishedGroup",
    "arrange",
    "check_own_group",
    "compute_group_round_id",
    "name_delegates",
]

FEW_GROUPS = 3
"""Up to so many groups send two delegates each: fewer than four delegates could not lose a single one."""

MAX_LEVEL = 8
_GROUP_LABEL = b"p2psa/1/group"
_DELEGATE_LABEL = b"p2psa/1/delegate"


@dataclass(frozen=True, kw_only=True)
class FinishedGroup:
    """A cohort whose sum is known: its number, its round id, the digest its quorum signed, and who signed it, so
    holds the sum.

    `peers` is the most peers whose updates its sum may hold.
    """

    group: int
    round_id: str
    sum_digest: str
    signers: tuple[PeerId, ...]
    peers: int


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """A cohort of the next level: delegates sorted by identity key, and for each the number of its group."""

    cohort: tuple[PeerId, ...]
    sources: tuple[int, ...]
    multiplicity: int
    """The most peers summed in what one of its groups contributes."""


def compute_group_round_id(run: str, round_number: int, attempt: int, level: int, group: int) -> Digest:
    """SHA-256("p2psa/1/group" | run id | u32 round | u32 attempt | u8 level | u16 group), little-endian.

    Args:
        run: the run id, 64 hexadecimal digits.
        round_number: from 1.
        attempt: from 1.
        level: from 1, up to `MAX_LEVEL`.
        group: from 0, below 65,536.

    Raises:
        EncodingError: the run id is malformed.
        TermsError: a level or group outside its range.
    """
    if not 1 <= level <= MAX_LEVEL or not 0 <= group < 1 << 16:
        raise TermsError(f"round: level 1 to {MAX_LEVEL} and group 0 to 65535, got level {level} group {group}")
    place = struct.pack("<IIBH", round_number, attempt, level, group)
    return Digest(hashlib.sha256(_GROUP_LABEL + parse_hex(run, what="run id") + place).hexdigest())


def arrange(peers: Sequence[PeerId], *, size: int, smallest: int, most: int) -> tuple[tuple[PeerId, ...], ...]:
    """Cohorts of one level-1 round: neighbours in the given order stay together, sizes differ by one at most.

    Peers at the end are left out where not all fit: more than `most` cohorts of `size`, or a number that gives no
    cohorts of at least `smallest`.

    Args:
        peers: distinct, in the order in which they should find a place.
        size: most peers of one cohort, 3 to 64.
        smallest: fewest peers of one cohort, 3 to `size`.
        most: most cohorts, at least 1.

    Returns:
        cohorts, each sorted by identity key.

    Raises:
        TermsError: a bound outside its range, a peer named twice, or fewer peers than `smallest`.
    """
    if not 3 <= smallest <= size <= MAX_COHORT or most < 1:
        raise TermsError(f"round: cohorts of {smallest} to {size} peers, at most {most} of them, cannot be formed")
    if len(set(peers)) != len(peers):
        raise TermsError("round: a peer is named twice")
    if len(peers) < smallest:
        raise TermsError(f"round: {len(peers)} peers, expected at least {smallest}")
    count = min(most, -(-len(peers) // size), len(peers) // smallest)
    placed = min(len(peers), count * size)
    bounds = [placed * group // count for group in range(count + 1)]
    return tuple(tuple(sorted(peers[start:end])) for start, end in itertools.pairwise(bounds))


def name_delegates(groups: Sequence[FinishedGroup], *, fan_in: int = MAX_COHORT) -> tuple[Delegation, ...]:
    """The cohorts of the next level over at least two finished groups; one cohort means that it is the last level.

    Every group sends the signer that its own result draws first: over rounds, everybody's turn comes. Where a cohort
    has `FEW_GROUPS` or less, each group sends a second one, who puts the sum in only where the first is not in the
    mask set (`RoundParameters.contributes`).

    Args:
        groups: in the order in which they should be combined.
        fan_in: most groups combined by one cohort, 4 to 64.

    Raises:
        TermsError: fewer than two groups, a fan-in outside its range, a group without the signers it needs, or one
            peer that would speak for two groups.
    """
    if len(groups) < 2 or not FEW_GROUPS < fan_in <= MAX_COHORT:
        raise TermsError(f"round: {len(groups)} groups cannot be combined {fan_in} at a time")
    count = -(-len(groups) // fan_in)
    bounds = [len(groups) * part // count for part in range(count + 1)]
    return tuple(_delegate(groups[start:end]) for start, end in itertools.pairwise(bounds))


def check_own_group(delegation: Delegation, peer: PeerId, group: Collection[PeerId]) -> None:
    """What a delegate checks of the cohort it is named in: nobody else could know who its group was.

    An outsider that speaks for its group could put the sum in its place; a member that speaks for another could
    count it twice.

    Args:
        delegation: the cohort of delegates.
        peer: this peer.
        group: the cohort whose sum it holds.

    Raises:
        TermsError: the peer is not in the cohort, or others speak for its group than members of it.
    """
    if peer not in delegation.cohort:
        raise TermsError("round: this peer is not among the delegates")
    own = delegation.sources[delegation.cohort.index(peer)]
    for other, source in zip(delegation.cohort, delegation.sources, strict=True):
        if source == own and other not in group:
            raise TermsError(f"round: {short(other)} speaks for group {own} but was not in it")
        if source != own and other in group:
            raise TermsError(f"round: {short(other)} of group {own} speaks for group {source}")


def _delegate(groups: Sequence[FinishedGroup]) -> Delegation:
    each = 2 if len(groups) <= FEW_GROUPS else 1
    sources: dict[PeerId, int] = {}
    for group in groups:
        drawn = _drawn(group)[:each]
        if len(drawn) < each:
            raise TermsError(
                f"round: group {group.group} has {len(drawn)} peers that signed its sum, expected {each}"
            )
        if any(peer in sources for peer in drawn):
            raise TermsError(f"round: a peer of group {group.group} already speaks for another group")
        sources |= dict.fromkeys(drawn, group.group)
    cohort = tuple(sorted(sources))
    return Delegation(
        cohort=cohort,
        sources=tuple(sources[peer] for peer in cohort),
        multiplicity=max(group.peers for group in groups),
    )


def _drawn(group: FinishedGroup) -> list[PeerId]:
    """Signers in an order that nobody chose before the group's sum was known."""
    head = b"".join(
        [
            _DELEGATE_LABEL,
            parse_hex(group.round_id, what="round id"),
            parse_hex(group.sum_digest, what="digest of a group's sum"),
        ]
    )
    return sorted(set(group.signers), key=lambda peer: _rank(head, peer))


def _rank(head: bytes, peer: PeerId) -> bytes:
    return hashlib.sha256(head + parse_hex(peer, what="peer id")).digest()

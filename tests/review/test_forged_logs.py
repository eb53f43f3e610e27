"""A signaling server that writes a round's log itself: only a cohort that the terms allow can have signed it."""

import hashlib

import msgspec
import pytest

from protocol.cohorts import compute_group_round_id
from protocol.errors import ProtocolError
from protocol.identity import Identity
from protocol.signaling import (
    Combining,
    GroupCount,
    LogEntry,
    LogPage,
    MemberSignature,
    compute_round_id,
    sign_result,
)
from protocol.terms import LocalTraining, RunTerms
from python_node.author import Author
from python_node.log_checking import check_entry, check_own_delegates

RUN, MODEL = "ab" * 32, "cd" * 32
HONEST = sorted((Identity(hashlib.sha256(b"honest%d" % i).digest()) for i in range(4)), key=lambda x: x.peer_id)
FAKE = sorted((Identity(hashlib.sha256(b"fake%d" % i).digest()) for i in range(4)), key=lambda x: x.peer_id)


def agreed(**changes) -> RunTerms:
    given = {
        "name": "run",
        "plan": "ef" * 32,
        "nonce": "01" * 32,
        "rounds": 3,
        "cohort_size": 4,
        "min_cohort": 4,
        "min_survivors": 3,
        "retries": 1,
        "clip": 1.0,
        "local": LocalTraining(batch_size=8, learning_rate=0.1),
    }
    return RunTerms(**{**given, **changes})


def logged(peers, *, number=1, attempt=1, survivors=(0, 1, 2)) -> LogEntry:
    """A round that all these signed, whoever they are."""
    round_id = compute_round_id(RUN, number, attempt)
    return LogEntry(
        run=RUN,
        round=number,
        attempt=attempt,
        round_id=round_id,
        cohort=tuple(peer.peer_id for peer in peers),
        survivors=survivors,
        previous_digest="00" * 32,
        model_digest=MODEL,
        metrics=b"",
        signatures=tuple(
            MemberSignature(
                index=index,
                signature=sign_result(peer, round_id=round_id, model_digest=MODEL, survivors=survivors, metrics=b""),
            )
            for index, peer in enumerate(peers)
        ),
        seconds=1.0,
        logged_at=1.0,
    )


TWO_GROUPS = Combining(
    sources=(0, 0, 1, 1),
    multiplicity=4,
    groups=(GroupCount(group=0, members=4, survivors=4), GroupCount(group=1, members=4, survivors=3)),
)


def logged_by_delegates(peers, **changes) -> LogEntry:
    """A round of many cohorts that all these delegates signed."""
    round_id = compute_group_round_id(RUN, 1, 1, 2, 0)
    survivors = changes.pop("survivors", (0, 1, 2))
    return msgspec.structs.replace(
        logged(peers),
        round_id=round_id,
        survivors=survivors,
        combining=msgspec.structs.replace(TWO_GROUPS, **changes),
        signatures=tuple(
            MemberSignature(
                index=index,
                signature=sign_result(peer, round_id=round_id, model_digest=MODEL, survivors=survivors, metrics=b""),
            )
            for index, peer in enumerate(peers)
        ),
    )


def test_delegates_of_the_groups_that_terms_allow_are_believed():
    entry = logged_by_delegates(HONEST)
    check(entry, agreed(cohorts=2))
    assert entry.peers() == (8, 7)


def test_delegates_sign_no_round_of_one_cohort_and_no_cohort_signs_for_delegates():
    with pytest.raises(ProtocolError, match="terms say 1 cohorts"):
        check(logged_by_delegates(HONEST), agreed())
    with pytest.raises(ProtocolError, match="round id"):
        check(msgspec.structs.replace(logged_by_delegates(HONEST), combining=None), agreed(cohorts=2))
    with pytest.raises(ProtocolError, match="round id"):
        check(msgspec.structs.replace(logged(HONEST), combining=TWO_GROUPS), agreed(cohorts=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": (0, 0, 0, 1)},
        {"sources": (0, 0, 1, 2)},
        {"sources": (0, 0, 1)},
        {"sources": (0, 0, 0, 0)},
        {"groups": (*TWO_GROUPS.groups, GroupCount(group=2, members=4, survivors=4))},
        {"groups": (TWO_GROUPS.groups[0], TWO_GROUPS.groups[0])},
    ],
    ids=["three of one group", "a group beyond the terms", "too few", "one group", "unspoken group", "twice"],
)
def test_delegates_that_do_not_fit_their_groups_are_refused(changes):
    with pytest.raises(ProtocolError, match="each with one delegate or two"):
        check(logged_by_delegates(HONEST, **changes), agreed(cohorts=2))


@pytest.mark.parametrize(
    ("members", "survivors"), [(64, 64), (3, 3), (4, 2), (4, 5)], ids=["too many", "too few", "no quorum", "more"]
)
def test_counts_of_groups_that_the_terms_do_not_allow_are_shown_to_nobody(members, survivors):
    groups = (TWO_GROUPS.groups[0], GroupCount(group=1, members=members, survivors=max(3, survivors)))
    asked = agreed(cohorts=2, min_survivors=4 if survivors == 2 else 3)
    with pytest.raises(ProtocolError, match=f"of {members} peers in group 1"):
        check(logged_by_delegates(HONEST, groups=groups), asked)


@pytest.mark.parametrize("make", [logged, logged_by_delegates])
def test_survivors_beyond_the_cohort_are_refused_even_with_a_quorum(make):
    entry = make(HONEST, survivors=(0, 1, 2, 63))
    with pytest.raises(ProtocolError, match="names survivor 63 of 4 peers"):
        check(entry, agreed(cohorts=2))


def test_quorum_of_delegates_is_needed():
    entry = logged_by_delegates(HONEST)
    with pytest.raises(ProtocolError, match="2 peers signed round 1, expected 3 of 4"):
        check(msgspec.structs.replace(entry, signatures=entry.signatures[:2]), agreed(cohorts=2))
    with pytest.raises(ProtocolError, match="a sum over 2 peers, expected 3 or more"):
        check(logged_by_delegates(HONEST, survivors=(0, 1)), agreed(cohorts=2))


def test_member_of_a_group_knows_who_may_speak_for_it():
    entry = logged_by_delegates(HONEST)
    ids = [peer.peer_id for peer in HONEST]
    own, outsider = ids[0], FAKE[0].peer_id
    check_own_delegates(entry, own=own, group=0, cohort={*ids[:2], outsider})
    with pytest.raises(ProtocolError, match=f"{ids[1][:8]} speaking for group 0"):
        check_own_delegates(entry, own=own, group=0, cohort={own, outsider})
    with pytest.raises(ProtocolError, match=f"{ids[2][:8]} speaking for group 1"):
        check_own_delegates(entry, own=own, group=0, cohort=set(ids[:3]))
    with pytest.raises(ProtocolError, match="no groups are logged"):
        check_own_delegates(logged(HONEST), own=own, group=0, cohort=set(ids))


def check(entry: LogEntry, terms: RunTerms) -> None:
    check_entry(entry, run=RUN, number=entry.round, digest=MODEL, terms=terms)


def test_a_round_of_the_listed_members_is_believed():
    check(logged(HONEST), agreed(members=tuple(peer.peer_id for peer in HONEST)))


def test_a_cohort_of_strangers_signs_no_model_of_a_run_with_members():
    with pytest.raises(ProtocolError, match="4 peers outside the author's list"):
        check(logged(FAKE), agreed(members=tuple(peer.peer_id for peer in HONEST)))


def test_one_key_at_every_index_is_no_quorum():
    with pytest.raises(ProtocolError, match="names a peer twice"):
        check(logged([FAKE[0]] * 4), agreed())


def test_a_cohort_smaller_than_the_terms_allow_is_no_quorum():
    with pytest.raises(ProtocolError, match="a cohort of 3 is logged, terms say 4 to 4"):
        check(logged(FAKE[:3]), agreed())


def test_a_sum_over_fewer_survivors_than_the_terms_allow_is_not_believed():
    with pytest.raises(ProtocolError, match="a sum over 2 peers, expected 3 or more"):
        check(logged(HONEST, survivors=(0, 1)), agreed())


@pytest.mark.parametrize(("number", "attempt"), [(4, 1), (1, 3)])
def test_a_round_or_attempt_beyond_the_terms_is_not_believed(number, attempt):
    with pytest.raises(ProtocolError, match="terms say 3 rounds of 2 attempts"):
        check(logged(HONEST, number=number, attempt=attempt), agreed())


class EndlessLog:
    """A session whose log goes on at the page that was just read."""

    async def log(self, _run, *, first):
        return LogPage(re=1, entries=(), next=first)

    async def events(self):
        return
        yield


async def test_a_log_that_never_ends_is_given_up():
    author = Author(EndlessLog(), HONEST[0])
    with pytest.raises(ProtocolError, match="after round 1 signaling's log goes on at 1"):
        async for _ in author._entries(RUN, 1):
            pass

"""A signaling server that writes a round's log itself: only a cohort that the terms allow can have signed it."""

import hashlib

import pytest

from protocol.errors import ProtocolError
from protocol.identity import Identity
from protocol.signaling import LogEntry, LogPage, MemberSignature, compute_round_id, sign_result
from protocol.terms import LocalTraining, RunTerms
from python_node.author import Author
from python_node.log_checking import check_entry

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

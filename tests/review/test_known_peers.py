"""`known_peers`: an owner asks for peers it knows in every cohort, whoever names it."""

import msgspec
import pytest

from protocol.identity import Identity
from python_node.errors import PolicyError
from python_node.policy import Policy
from python_node.receipts import open_receipt
from tests.e2e.world import finished
from tests.node.test_policy import AUTHOR, decide, terms

OWN, *OTHERS = (Identity(bytes([number]) * 32).peer_id for number in range(1, 7))


def asking(count: int) -> Policy:
    return Policy(authors=[AUTHOR], known_peers=OTHERS[:3], min_known_peers=count)


def test_enough_known_peers_are_enough():
    assert asking(2).judge_cohort([OWN, *OTHERS[:2]], own=OWN) is None
    assert Policy().judge_cohort([OWN, *OTHERS], own=OWN) is None


def test_too_few_known_peers_are_counted_on_both_sides():
    objection = asking(3).judge_cohort([OWN, *OTHERS[2:]], own=OWN)
    assert objection == "of 3 other peers in the cohort 1 are known; policy asks for 3 or more"


def test_neither_this_node_nor_one_key_many_times_counts():
    policy = Policy(known_peers=[OWN, OTHERS[0]], min_known_peers=2)
    assert policy.judge_cohort([OWN, OTHERS[0], OTHERS[0], OTHERS[1]], own=OWN) is not None


def test_a_run_whose_members_are_strangers_is_declined_at_the_offer():
    asked = terms(members=tuple(sorted(OTHERS[2:])), min_cohort=3, min_survivors=3)
    policy = msgspec.structs.replace(asking(2), min_cohort=3, min_survivors=3)
    decision = decide(policy, terms=asked)
    assert (decision.accepted, decision.rule) == (False, "min_known_peers")
    assert "1 at most; policy asks for 2" in decision.reason
    assert decide(msgspec.structs.replace(policy, min_known_peers=1), terms=asked).accepted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"known_peers": ["abc"]}, "known_peers: 'abc' is no peer id"),
        ({"known_peers": OTHERS[:1] * 2, "min_known_peers": 2}, "2 are asked for, known_peers lists 1"),
    ],
)
def test_a_policy_nobody_can_meet_is_refused(values, words):
    with pytest.raises(PolicyError, match=words):
        Policy(**values)


async def test_a_cohort_without_known_peers_is_left(patient_world, plan):
    """Before anything is sent to it; the others go on."""
    world = patient_world
    await world.nodes(3)
    author = await world.author()
    friend = Identity(b"f" * 32).peer_id
    careful = await world.node("careful", policy=world.policy(known_peers=[friend], min_known_peers=1))

    run = (await world.publish(author, plan, cohort_size=4, min_cohort=3, rounds=2)).run

    left = await careful.diary.until("withdrawn", run=run)
    assert left.fields["reason"] == "of 3 other peers in the cohort 0 are known; policy asks for 1 or more"
    assert (await finished(author, run)).state == "finished"
    assert not careful.diary.of("round_started")
    receipts = [open_receipt(item, node=careful.peer) for item in careful.state.receipts(run)]
    assert [(r.decision, r.rule) for r in receipts] == [("accepted", "authors"), ("declined", "min_known_peers")]


async def test_a_cohort_with_a_known_peer_is_joined(world, plan):
    others = await world.nodes(2)
    author = await world.author()
    careful = await world.node("careful", policy=world.policy(known_peers=[others[0].peer], min_known_peers=1))

    run = (await world.publish(author, plan, cohort_size=3, rounds=1)).run

    await careful.diary.until("round_completed", run=run)

"""Rounds of a model that counts as large: less is kept, the result is the same."""

import pytest

from tests.e2e.world import finished


@pytest.mark.parametrize(("large", "kept"), [(True, 1), (False, 2)])
async def test_of_a_large_model_only_the_last_round_stays_in_memory(world, plan, monkeypatch, large, kept):
    for module in ("membership", "training"):
        monkeypatch.setattr(f"python_node.{module}.is_large", lambda _manifest: large)
    monkeypatch.setattr("python_node.training.give_memory_back", lambda: None)
    hosts = await world.nodes(4)
    author = await world.author()
    run = (await world.publish(author, plan, cohort_size=4, min_cohort=4)).run

    status = await finished(author, run)

    assert (status.state, status.round) == ("finished", 3)
    for host in hosts:
        await host.diary.until("round_completed", round=3)
    assert len({host.model(run)[:2] for host in hosts}) == 1
    for host in hosts:
        assert len(host.node._runs[run].membership.attempts()) == kept

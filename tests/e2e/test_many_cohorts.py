"""Rounds of several cohorts over real links: groups sum, delegates combine, all end with one model (spec 08)."""

from python_node.log_checking import check_entry
from tests.e2e.world import finished, models, terms, whole_log

TWO = {"cohorts": 2, "cohort_size": 5, "min_cohort": 3}


async def test_ten_peers_in_two_cohorts_end_with_one_model(world, plan):
    hosts = await world.nodes(10)
    author = await world.author()
    run = (await world.publish(author, plan, rounds=3, **TWO)).run

    assert (await finished(author, run)).state == "finished"

    held = await models(hosts, run, 3)
    assert len(held) == 1
    entries = await whole_log(author, run)
    assert held.pop()[:2] == (3, entries[-1].model_digest)
    asked = terms(plan, rounds=3, **TWO)
    for number, entry in enumerate(entries, 1):
        check_entry(entry, run=run, number=number, digest=entry.model_digest, terms=asked)
        assert entry.peers() == (10, 10)
        assert len(entry.cohort) == 4, "two groups send two delegates each"
        assert sorted(entry.combining.sources) == [0, 0, 1, 1]

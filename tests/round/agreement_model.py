"""What peers of p2psa/1 agree on and reveal, as a small model that is explored whole (spec 07 §5 to §8).

A state is what each honest peer did so far. A step is one honest peer doing one thing that a rule of the spec allows:

    adopt     a mask set K under some roster, which gives T2; at most one                           §5
    commit    to one T2; at most once                                                               §6, spent
    vote      for a survivor set U of its own T2, |U| >= max(t, u_min), itself in K; at most once    §7
    certify   adopt t votes of peers of K on one (T2, U) of its own T2; at most one certificate     §7

A peer that died and came back takes no further step in the attempt (§2): so ends every path on which it takes none.
Everything else is left to the adversary. Who proposes what to whom, and when, is not limited at all: leaders, views,
deadlines and the network only delay or order these steps, so every rotation of leaders and every schedule is among
the paths explored, and liars may show each peer another roster, K or U. Liars vote for everything, and tell every
share they hold. A peer that holds a certificate tells whatever that opens, at once. Signatures, hashes and shares are
taken as perfect. What the model does not have: that a peer finishes, what the sum is, and the code.

`explore` walks breadth first through all states and gives the shortest path to one that must not be, or None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

__all__ = ["Exploration", "Model", "explore"]


@dataclass(frozen=True)
class Model:
    """n peers of which the last `liars` lie. Each rule can be taken out, to see that the exploration finds it.

    Args:
        n: peers in the cohort.
        liars: how many of them work together.
        rosters: how many different T1 the liars show around.
        less: subtracted from t = floor(2n/3) + 1.
        one_vote: a peer votes at most once.
        spent: a peer commits at most once.
        stays_out: a peer that was restarted takes no further step; else it goes on, and forgot that it voted.
        bound_votes: a certificate counts votes on its own (T2, U) only.
    """

    n: int
    liars: int
    rosters: int = 1
    less: int = 0
    one_vote: bool = True
    spent: bool = True
    stays_out: bool = True
    bound_votes: bool = True

    @property
    def threshold(self) -> int:
        """t, or less where that rule is taken out."""
        return 2 * self.n // 3 + 1 - self.less

    @property
    def honest(self) -> range:
        """Peers that follow the rules."""
        return range(self.n - self.liars)


class Peer(NamedTuple):
    """What one honest peer did: `t2` is where it stands, the bitmaps are what it ever signed or adopted."""

    t2: int = -1
    commits: int = 0
    votes: int = 0
    certificates: int = 0
    voted: bool = False


State = tuple[Peer, ...]


@dataclass(frozen=True)
class Exploration:
    """How many states there are, and the shortest path to a forbidden one: what is wrong, then step by step."""

    states: int
    wrong: str | None = None
    path: tuple[str, ...] = ()


class _Space:
    """The finite alphabet of a model: mask sets under rosters (T2), and survivor sets of each."""

    def __init__(self, model: Model) -> None:
        self.model = model
        sets = [
            frozenset(chosen)
            for size in range(model.threshold, model.n + 1)
            for chosen in combinations(range(model.n), size)
        ]
        self.mask_sets = [(roster, members) for roster in range(model.rosters) for members in sets]
        self.outcomes = [
            (t2, survivors)
            for t2, (_, members) in enumerate(self.mask_sets)
            for survivors in sets
            if survivors <= members
        ]
        liars = frozenset(range(model.n)) - frozenset(model.honest)
        self.lying = [len(liars & self.mask_sets[t2][1]) for t2, _ in self.outcomes]
        self.of_t2 = [[o for o, (t2, _) in enumerate(self.outcomes) if t2 == at] for at in range(len(self.mask_sets))]

    def certified(self, state: State) -> list[int]:
        """Outcomes on which t votes of peers of K exist; every liar in K votes for all of them."""
        model = self.model
        counts = [0] * len(self.outcomes)
        for peer in state:
            if model.bound_votes:
                for outcome in _bits(peer.votes):
                    counts[outcome] += 1
            elif peer.votes:
                counts = [count + 1 for count in counts]
        found = []
        for outcome, count in enumerate(counts):
            if count + self.lying[outcome] >= model.threshold:
                found.append(outcome)
        return found

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything an honest peer may do next."""
        certified = self.certified(state)
        for index, peer in enumerate(state):
            for word, after in self._steps_of(index, peer, certified):
                yield f"peer {index} {word}", (*state[:index], after, *state[index + 1 :])

    def _steps_of(self, index: int, peer: Peer, certified: list[int]) -> Iterator[tuple[str, Peer]]:
        model = self.model
        if peer.t2 < 0:
            for t2 in range(len(self.mask_sets)):
                yield f"adopts {self.say_t2(t2)}", peer._replace(t2=t2)
            return
        masks = index in self.mask_sets[peer.t2][1]
        commits = 1 if model.spent else 2
        if masks and index == 0 and peer.commits < commits:  # honest peers are alike: one has its commits counted
            yield "commits an update", peer._replace(commits=peer.commits + 1)
        if masks and (not peer.voted or not model.one_vote):
            for outcome in self.of_t2[peer.t2]:
                if not peer.votes >> outcome & 1:
                    yield f"votes for {self.say(outcome)}", peer._replace(votes=peer.votes | 1 << outcome, voted=True)
        if not peer.certificates:
            for outcome in certified:
                if self.outcomes[outcome][0] == peer.t2 and not peer.certificates >> outcome & 1:
                    after = peer._replace(certificates=peer.certificates | 1 << outcome)
                    yield f"adopts the certificate of {self.say(outcome)}", after
        if peer.voted and not model.stays_out:
            yield "dies, comes back and forgot", peer._replace(t2=-1, voted=False)

    def wrong(self, state: State) -> str | None:
        """What must not be, of a state."""
        certified = self.certified(state)
        if len(certified) > 1:
            return f"two certificates: {' and '.join(self.say(outcome) for outcome in certified[:2])}"
        return self.wrong_secrets(state)

    def wrong_secrets(self, state: State) -> str | None:
        """What is known of honest peers that must not be: both secrets of one, or two updates under one mask."""
        for about, peer in enumerate(state):
            if peer.commits > 1:
                return f"peer {about} masked two updates with the same keys"
            seed = key = self.model.liars
            own = False
            for teller, other in enumerate(state):
                opened = [self._opens(outcome, about) for outcome in _bits(other.certificates)]
                seed += "seed" in opened
                key += "mask key" in opened
                own = own or (teller == about and "seed" in opened)
            if key >= self.model.threshold and (own or seed >= self.model.threshold):
                return f"both secrets of peer {about}"
        return None

    def _opens(self, outcome: int, about: int) -> str:
        t2, survivors = self.outcomes[outcome]
        if about in survivors:
            return "seed"
        return "mask key" if about in self.mask_sets[t2][1] else "nothing"

    def say_t2(self, t2: int) -> str:
        roster, members = self.mask_sets[t2]
        return f"K = {sorted(members)} of roster {roster}"

    def say(self, outcome: int) -> str:
        t2, survivors = self.outcomes[outcome]
        return f"U = {sorted(survivors)} within {self.say_t2(t2)}"


def explore(model: Model, *, secrets_alone: bool = False) -> Exploration:
    """All states of a model, breadth first. `secrets_alone` looks on where two certificates exist."""
    space = _Space(model)
    check = space.wrong_secrets if secrets_alone else space.wrong
    start: State = tuple(Peer() for _ in model.honest)
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    layer = [start]
    while layer:
        reached = []
        for state in layer:
            for word, after in space.steps(state):
                if after in came_from:
                    continue
                came_from[after] = (state, word)
                wrong = check(after)
                if wrong is not None:
                    return Exploration(len(came_from), wrong, _path(came_from, after))
                reached.append(after)
        layer = reached
    return Exploration(len(came_from))


def _path(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    words: list[str] = []
    while (step := came_from[state]) is not None:
        state, word = step
        words.append(word)
    return tuple(reversed(words))


def _bits(number: int) -> list[int]:
    return [bit for bit in range(number.bit_length()) if number >> bit & 1]

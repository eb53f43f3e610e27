"""An owner's policy: which runs a node takes part in, decided without asking anybody and always with a reason.

Without a policy no author is allowed, so everything is declined. `Policy.decide` is pure: same arguments, same
decision. Rules are tried in the order of `_RULES`; the first that objects decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from plans.memory_limit import LEAST_LIMIT_BYTES, usual_limit_bytes
from protocol.identity import short
from protocol.manifest import DatasetSchema, Kinds, PlanManifest, explain_misfit
from protocol.server_optimizer import moment_count
from protocol.terms import RunTerms
from python_node.errors import PolicyError
from python_node.owner_files import read_owner_file, refuse_unknown_keys

__all__ = ["ANY_AUTHOR", "Decision", "Policy", "beyond_limits"]

ANY_AUTHOR = "any"
_REASON_LENGTH = 4000
_PEER_ID = re.compile(r"[0-9a-f]{64}")

_Cohort = Annotated[int, msgspec.Meta(ge=3, le=64)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the policy says of one run: `rule` is the policy key that decided, `dataset` what the run would read."""

    accepted: bool
    rule: str
    reason: str
    dataset: str | None = None


@dataclass(frozen=True)
class _Question:
    terms: RunTerms
    author: str
    manifest: PlanManifest


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an owner allows. Every default is on the careful side; nothing runs before `authors` names somebody."""

    authors: list[str] = []
    """Peer ids of authors whose runs may be accepted; ["any"] is everybody, and must be written out."""
    functions: list[Kinds] = msgspec.field(default_factory=lambda: ["train", "evaluate", "predict"])
    """A plan that brings any other function is declined."""
    min_cohort: _Cohort = 5
    """Smallest cohort with which a round may start."""
    min_survivors: _Cohort = 5
    """Fewest peers over whom a sum may be revealed: the owner's update hides among this many."""
    known_peers: list[str] = []
    """Peer ids the owner trusts not to be one party under many names; the node's own id does not count."""
    min_known_peers: Annotated[int, msgspec.Meta(ge=0, le=63)] = 0
    """At least so many of a cohort, beside this node, must be known peers: against cohorts of made-up peers."""
    max_parameters: _Positive = 50_000_000
    """Parameters of the model, each a float32."""
    max_model_bytes: _Positive = 1 << 30
    """Bytes of all blobs of the plan plus its vectors (parameters, optimizer state, buffers) in memory."""
    max_rounds: _Positive = 1000
    max_epochs: _Positive = 50
    """Local epochs per round."""
    max_round_seconds: _Positive = 900
    """All deadlines of one attempt at a round together."""
    max_memory_bytes: Annotated[int, msgspec.Meta(ge=LEAST_LIMIT_BYTES)] | Literal["half"] = "half"
    """What the process that trains for one run may take; "half" is half of this machine's memory."""
    share_example_counts: bool = False
    """Advertise how many examples a dataset has."""
    serve_models: bool = True
    """Give models of runs this node takes part in to peers that ask."""
    datasets: dict[str, list[str]] = {}
    """Dataset names or patterns by plan-name pattern; where any is given, a plan reads only what it lists."""

    def __post_init__(self) -> None:
        for author in self.authors:
            if author != ANY_AUTHOR and not _PEER_ID.fullmatch(author):
                raise PolicyError(
                    f"authors: {author[:80]!r} is no peer id (64 lower-case hexadecimal digits) "
                    f'and not "{ANY_AUTHOR}"'
                )
        for peer in self.known_peers:
            if not _PEER_ID.fullmatch(peer):
                raise PolicyError(f"known_peers: {peer[:80]!r} is no peer id (64 lower-case hexadecimal digits)")
        listed = len(set(self.known_peers))
        if self.min_known_peers > listed:
            raise PolicyError(f"min_known_peers: {self.min_known_peers} are asked for, known_peers lists {listed}")
        if ANY_AUTHOR in self.authors and len(self.authors) > 1:
            raise PolicyError(f'authors: "{ANY_AUTHOR}" stands beside peer ids, which it would make meaningless')

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy from a TOML file.

        Raises:
            PolicyError: the file cannot be read, has an unknown key, or a value out of range.
        """
        document = read_owner_file(path, what="policy", error=PolicyError)
        refuse_unknown_keys(document, cls.__struct_fields__, where=f"policy {path}", error=PolicyError)
        try:
            return msgspec.convert(document, cls)
        except (msgspec.ValidationError, PolicyError) as error:
            raise PolicyError(f"policy {path}: {error}") from None

    def decide(
        self, *, terms: RunTerms, author: str, manifest: PlanManifest, datasets: Sequence[DatasetSchema]
    ) -> Decision:
        """Decide on a run: the first dataset in the given order that is allowed and fits is the one it reads.

        `author` is the verified signer of both the terms and the plan; that they are one is the caller's check.
        """
        question = _Question(terms, author, manifest)
        for rule, judge in _RULES:
            objection = judge(self, question)
            if objection is not None:
                return Decision(accepted=False, rule=rule, reason=objection)
        return self._choose_dataset(question, datasets)

    def judge_cohort(self, cohort: Iterable[str], *, own: str) -> str | None:
        """What speaks against taking part with these peers, under the key `min_known_peers`; None where nothing."""
        others = set(cohort) - {own}
        known = len(others & set(self.known_peers))
        if known >= self.min_known_peers:
            return None
        return (
            f"of {len(others)} other peers in the cohort {known} are known; "
            f"policy asks for {self.min_known_peers} or more"
        )

    @property
    def memory_limit(self) -> int:
        """`max_memory_bytes` as a number, on this machine."""
        return usual_limit_bytes() if self.max_memory_bytes == "half" else self.max_memory_bytes

    def allows_dataset(self, plan: str, dataset: str) -> bool:
        """Whether `datasets` lets the plan of that name read the dataset of that name."""
        return not self.datasets or any(
            fnmatchcase(plan, pattern) and any(fnmatchcase(dataset, name) for name in names)
            for pattern, names in self.datasets.items()
        )

    def _choose_dataset(self, question: _Question, datasets: Sequence[DatasetSchema]) -> Decision:
        plan = question.manifest.name
        allowed = [dataset for dataset in datasets if self.allows_dataset(plan, dataset.name)]
        if not allowed:
            have = ", ".join(dataset.name for dataset in datasets) or "none"
            return Decision(
                accepted=False,
                rule="datasets",
                reason=f"plan {plan} may read no dataset of this node (it has: {have})",
            )
        misfits = []
        for dataset in allowed:
            misfit = explain_misfit(question.manifest, dataset)
            if misfit is None:
                told = "any author" if self.authors == [ANY_AUTHOR] else f"author {short(question.author)}"
                reason = f"{told} is allowed, every limit holds, and dataset {dataset.name} fits plan {plan}"
                return Decision(accepted=True, rule="authors", reason=reason, dataset=dataset.name)
            misfits.append(misfit)
        return Decision(accepted=False, rule="datasets", reason=_cut("; ".join(misfits)))


def _cut(reason: str) -> str:
    """Keep a reason to a size that fits a receipt: a node may have many datasets of many fields."""
    return reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 4] + " ..."


def _judge_author(policy: Policy, question: _Question) -> str | None:
    if policy.authors == [ANY_AUTHOR] or question.author in policy.authors:
        return None
    known = f"{len(policy.authors)} listed" if policy.authors else "nobody"
    return (
        f"author {question.author} is not allowed (policy allows {known}); "
        f'to allow this author, put "{question.author}" into authors of the policy file'
    )


def _judge_functions(policy: Policy, question: _Question) -> str | None:
    extra = sorted(set(question.manifest.functions) - set(policy.functions))
    if not extra:
        return None
    allowed = ", ".join(policy.functions) or "none"
    return f"plan {question.manifest.name} brings {', '.join(extra)}; policy allows {allowed}"


def _judge_at_least(key: str, what: str, ask: Callable[[_Question], int]) -> tuple[str, _Judge]:
    def judge(policy: Policy, question: _Question) -> str | None:
        asked, limit = ask(question), getattr(policy, key)
        return None if asked >= limit else f"{what} {asked}; policy asks for {limit} or more"

    return key, judge


def _judge_at_most(key: str, what: str, ask: Callable[[_Question], float]) -> tuple[str, _Judge]:
    def judge(policy: Policy, question: _Question) -> str | None:
        asked, limit = ask(question), getattr(policy, key)
        return None if asked <= limit else f"{what} {asked:.12g}; policy allows {limit} at most"

    return key, judge


def _judge_members(policy: Policy, question: _Question) -> str | None:
    """A run whose author leaves no room for enough known peers need not be tried."""
    terms = question.terms
    known = len(set(policy.known_peers) & set(terms.members)) if terms.members else len(set(policy.known_peers))
    room = min(known, terms.cohort_size - 1)
    if room >= policy.min_known_peers:
        return None
    return f"known peers in a cohort of this run number {room} at most; policy asks for {policy.min_known_peers}"


def _model_bytes(question: _Question) -> int:
    manifest = question.manifest
    moments = moment_count(question.terms.server_optimizer, manifest.shared_count)
    vectors = 4 * (manifest.parameter_count + manifest.optimizer_count + manifest.buffer_count + moments)
    return vectors + sum(blob.size for blob in manifest.blobs)


def _round_seconds(question: _Question) -> float:
    deadlines = question.terms.deadlines
    total_ms: int = sum(getattr(deadlines, name) for name in deadlines.__struct_fields__)
    return total_ms / 1000


def beyond_limits(policy: Policy, manifest: PlanManifest, terms: RunTerms) -> dict[str, str]:
    """Why a policy's limits on sizes and times decline a run, by the limit's name; empty where none does."""
    question = _Question(terms, "", manifest)
    judged = {key: judge(policy, question) for key, judge in _RULES if key.startswith("max_")}
    return {key: reason for key, reason in judged.items() if reason is not None}


_Judge = Callable[[Policy, _Question], str | None]

_RULES: tuple[tuple[str, _Judge], ...] = (
    ("authors", _judge_author),
    ("functions", _judge_functions),
    _judge_at_least("min_cohort", "a round of this run may start with a cohort of", lambda q: q.terms.min_cohort),
    _judge_at_least(
        "min_survivors", "this run reveals sums over as few survivors as", lambda q: q.terms.min_survivors
    ),
    ("min_known_peers", _judge_members),
    _judge_at_most("max_parameters", "the model's parameters number", lambda q: q.manifest.parameter_count),
    _judge_at_most("max_model_bytes", "the bytes of the plan's blobs and vectors are", _model_bytes),
    _judge_at_most("max_rounds", "the rounds of this run number", lambda q: q.terms.rounds),
    _judge_at_most("max_epochs", "the local epochs of a round number", lambda q: q.terms.local.epochs),
    _judge_at_most("max_round_seconds", "the deadlines of a round add up to seconds:", _round_seconds),
)

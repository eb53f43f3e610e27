# ruff: noqa: E501, T201 -- pieces of source are quoted on one line; this is a program that prints
"""Take out each guard in turn and see which test fails: `python -m tests.round.mutations [name ...]`.

Prints a table in Markdown. A guard whose removal no test notices is an error, and so is text that is no longer there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import NamedTuple


class Guard(NamedTuple):
    """A piece of source and what it becomes without the guard."""

    name: str
    file: str
    old: str
    new: str


R, S = "protocol/round/", "protocol/secagg/"

GUARDS = [
    Guard("one vote per round", R + "voting.py", "if self._views.vote is not None or ", "if "),
    Guard("vote recorded before it is sent", R + "voting.py", 'self._state.post.persist("voted"', 'str("voted"'),
    Guard("certificate needs t votes", R + "voting.py", "if len(voters) < threshold or not voters", "if not voters"),
    Guard(
        "votes of a certificate are verified",
        R + "voting.py",
        "        self._state.post.codec.verify_votes(certificate, sorted(voters))",
        "        pass",
    ),
    Guard(
        "certificate respects u_min",
        R + "voting.py",
        "        if not self._state.large_enough(survivors):\n            raise MessageError(\n"
        '                f"peer {sender} sent a certificate for {len',
        "        if False:\n            raise MessageError(\n"
        '                f"peer {sender} sent a certificate for {len',
    ),
    Guard("certificate is bound to T2", R + "voting.py", "certificate.t2 != self._state.t2 or not", "not"),
    Guard(
        "one certificate per round",
        R + "voting.py",
        "        if self.certificate is not None:\n            return\n        if not self._state.t2",
        "        if not self._state.t2",
    ),
    Guard("survivor set of a vote respects u_min", R + "voting.py", " or not self._state.large_enough(survivors):", ":"),
    Guard("mask set respects u_min", R + "sharing.py", " or not self._state.large_enough(mask_set):", ":"),
    Guard("roster respects u_min", R + "advertising.py", "if not self._state.large_enough(roster):", "if False:"),
    Guard("u_min fits the cohort", S + "parameters.py", "if self.quorum > self.size:", "if False:"),
    Guard("kind of a share is fixed by the certificate", R + "seeds.py", "if self._kinds.get(about) != kind:", "if False:"),
    Guard(
        "own share: only the kind that is open",
        R + "seeds.py",
        "return shares[0] if self._kinds.get(peer) == Kind.SEED else shares[1]",
        "return shares[1]",
    ),
    Guard(
        "reveal recorded before it is sent", R + "unmasking.py", 'self._state.post.persist("revealed"', 'str("revealed"'
    ),
    Guard("own seed only for survivors", R + "unmasking.py", "if state.own_index in state.survivors else None", ""),
    Guard(
        "seed must match its commitment",
        R + "seeds.py",
        "if seed_commitment(seed) != self._adverts[peer].seed_commitment:",
        "if False:",
    ),
    Guard("recovered key must match the advert", R + "seeds.py", "if self._fits(about, secret):", "if True:"),
    Guard("advert is bound to T0", R + "advertising.py", "if advert.t0 != self._state.parameters.t0:", "if False:"),
    Guard("signatures are bound to T0", R + "codec.py", "verify(self._parameters.cohort[sender], label, self._parameters.t0 + body, signature)", "pass"),
    Guard("two adverts by one peer", R + "advertising.py", "if sender == self._state.own_index or not answered:", "if False:"),
    Guard("keys of a roster are unique", R + "advertising.py", "if len(set(keys)) != len(keys):", "if False:"),
    Guard("fingerprint of the advert", R + "advertising.py", "            if via == sender:\n", "            if False:\n"),
    Guard("fingerprint of a forwarded advert", R + "advertising.py", "                self._state.post.close(index)\n", ""),
    Guard("a forwarded advert counts", R + "advertising.py", "            if via == sender:\n", "            if True:\n"),
    Guard("views last while peers train", R + "views.py", "if self.vote is not None else max(state.now, state.stage_deadline)", ""),
    Guard("who shows that it adopted is asked", R + "views.py", ", *others[:enough]]", "]"),
    Guard("leaders wait for votes", R + "voting.py", "if self._views.is_left():", "if self._state.overdue(graces=1):"),
    Guard(
        "leaders wait for shares of who came late",
        R + "sharing.py",
        "if not chosen >= live and not (waited if later_view else self._state.overdue()):",
        "if False:",
    ),
    Guard(
        "leaders wait for a mask set that is large enough",
        R + "sharing.py",
        "if not self._state.large_enough(chosen) and not last:",
        "if False:",
    ),
    Guard(
        "fingerprint of a later link", R + "machine.py", "if self._advertising.check_link(index):", "if True:"
    ),
    Guard(
        "messages of a false link", R + "machine.py", " or not self._advertising.check_link(index):", ":"
    ),
    Guard(
        "small-order keys are refused",
        S + "keys.py",
        'raise RoundError(f"peer {other} advertised an X25519 key of small order") from None',
        "return bytes(32)",
    ),
    Guard("roster contains self", R + "advertising.py", "if self._state.own_index not in roster:", "if False:"),
    Guard("roster hashes to its root", R + "advertising.py", "if absent or self.digest(roster) != decided.root:", "if absent:"),
    Guard("commit root is recomputed", R + "voting.py", "if self._collecting.root(survivors) != decided.root:", "if False:"),
    Guard("commit is bound to T2", R + "chunks.py", "if commit.t2 != self._t2:", "if False:"),
    Guard("chunk matches its commit", R + "chunks.py", "if hashlib.sha256(payload).digest() != _commit(self._commits[sender]).digest(chunk):", "if False:"),
    Guard("only a leader decides", R + "decisions.py", "if received.sender != self._leader_of(decision.view):", "if False:"),
    Guard("a decision waits for its view", R + "decisions.py", "if decided_in <= view and", "if"),
    Guard("only a leader assigns", R + "collecting.py", "if sender != self._views.leader_of(assign.view):", "if False:"),
    Guard("backups of a chunk are few", R + "collecting.py", "return len(self.owners[chunk]) < self._state.parameters.replicas + _MAX_BACKUPS", "return True"),
    Guard("spent: the update is masked once", R + "collecting.py", "or self._spent or state.own_index", "or state.own_index"),
    Guard("an update that is not wanted stays", R + "collecting.py", "        if not self._is_wanted():\n            return  # this", "        if False:\n            return  # this"),
    Guard("commit recorded before it is sent", R + "collecting.py", 'self._state.post.persist("committed"', 'str("committed"'),
    Guard("sums only by owners", R + "summing.py", "or received.sender not in self._collecting.owners.get(total.chunk, ())", ""),
    Guard("two different sums", R + "summing.py", "elif _sum(known).payload != total.payload:", "elif False:"),
    Guard("sum signatures", R + "summing.py", "        verify(self._state.parameters.cohort[sender], _SUM_LABEL, payload, total.signature)", "        pass"),
    Guard("range of the sum", S + "quantise.py", "if most > bound or least < -bound:", "if False:"),
    Guard("t equal results", R + "agreeing.py", "if len(self._signatures) >= threshold:", "if self._signatures:"),
    Guard("result signatures", R + "codec.py", "            verify(self._parameters.cohort[sender], RESULT_LABEL, payload, message.signature)", "            pass"),
    Guard("chunks stay within the mask set's", R + "ranges.py", "    if highest >= count:\n", "    if False:\n"),
    Guard("sender is the link's peer", R + "inbox.py", "if received.sender != via and not forwarded and not isinstance(message, Sum):", "if False:"),
    Guard("frames are bound to the round", R + "codec.py", "if tag != self._tag:", "if tag is None:"),
    Guard("bitmaps stay within the cohort", R + "ranges.py", "if bits >> size:", "if False:"),
    Guard("indexes stay within the cohort", R + "ranges.py", "if value >= size:", "if False:"),
    Guard("length before parsing", R + "codec.py", "if len(data) > limit:", "if False:"),
    Guard("one answer per status", R + "views.py", "if status.view <= self._statuses.get(sender, 0):", "if False:"),
    Guard("answers are bounded", R + "requests.py", "if count >= _MAX_ANSWERS:", "if False:"),
    Guard("resends are bounded", R + "post.py", "if link.resends > _MAX_RESENDS:", "if False:"),
    Guard("waiting chunks are bounded", R + "chunks.py", "if len(waiting) >= self._max_pending and chunk not in waiting:", "if False:"),
    Guard("waiting sums are bounded", R + "summing.py", "if len(waiting) >= _MAX_EARLY_SUMS and total.chunk not in waiting:", "if False:"),
    Guard("share box is bound to its ends", S + "keys.py", "if len(plain) != 1 + 2 * SECRET_BYTES or plain[0] != receiver + 1:", "if False:"),
    Guard("silent leaders are replaced", R + "views.py", "or state.now >= self.leader_deadline or", "or"),
    Guard("a leader caught lying is replaced", R + "views.py", " or self.view in self._deposed\n", "\n"),
    Guard("an attempt ends", R + "state.py", "if self.now >= self.end:", "if False:"),
    Guard("a group's sum counts once", S + "parameters.py", "return index == min((other for other in mask_set if self.sources[other] == mine), default=None)", "return True"),
    Guard("T0 binds who speaks for which group", S + "parameters.py", "            + self._groups()\n", ""),
    Guard("range of a group's sum", R + "jobs.py", "if self.length and (int(self.sums.max()) > bound or int(self.sums.min()) < -bound):", "if False:"),
    Guard("groups' sums and updates are told apart", R + "collecting.py", "if isinstance(update, GroupSum) != state.parameters.combines:", "if False:"),
    Guard("a lost weight is made good", R + "combining.py", "aggregate.weight(model_length, parameters.largest_contribution)", "sums[model_length]"),
    Guard("populations fit the ring", S + "parameters.py", "if everybody * self.largest_contribution >= 1 << (self.ring_bits - 1):", "if False:"),
    Guard("outsiders do not speak for a group", "protocol/cohorts.py", "if source == own and other not in group:", "if False:"),
    Guard("members speak for their own group", "protocol/cohorts.py", "if source != own and other in group:", "if False:"),
    Guard("secrets are forgotten", R + "machine.py", "        self._state.forget_secrets()\n", ""),
]  # fmt: skip

TESTS = [
    "tests/round/attacks",
    "tests/secagg",
    "tests/round/test_schedules.py",
    "tests/round/test_simulation.py",
    "tests/round/test_many_cohorts.py",
]


def run(guard: Guard) -> str:
    """Name of the first test that fails without the guard; empty where none does."""
    environment = os.environ | {
        "PEERPLAN_MUTATION_FILE": guard.file,
        "PEERPLAN_MUTATION_OLD": guard.old,
        "PEERPLAN_MUTATION_NEW": guard.new,
        "PEERPLAN_SCHEDULES": "150",
    }
    for tests in TESTS:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.round.mutating", "--timeout=60", tests]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        failed = re.search(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
        if failed:
            return failed.group(1)
        if "Timeout" in done.stdout + done.stderr:
            return _unfinished(done.stdout + done.stderr)
        if done.returncode not in (0, 4, 5):
            raise RuntimeError(f"{guard.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return ""


def _unfinished(output: str) -> str:
    """The test in which the machine without its guard went round in circles."""
    inside = re.search(r"in (test_\w+)", output)
    return f"{inside.group(1) if inside else 'a test'} (does not end)"


def main(names: list[str]) -> int:
    print("| guard taken out | file | first test that fails |")
    print("|---|---|---|")
    unnoticed = 0
    if run(Guard("nothing", "", "", "")):
        raise RuntimeError("a test fails with every guard in place")
    for guard in GUARDS:
        if names and guard.name not in names:
            continue
        test = run(guard)
        unnoticed += not test
        print(f"| {guard.name} | `{guard.file}` | {f'`{test}`' if test else '**none**'} |", flush=True)
    return unnoticed


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

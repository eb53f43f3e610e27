"""Text: the next character after 32 others, by a GRU, learnt from Python's own licence.

`python -m examples.next_character --out text.plan` writes the plan; `--try` trains it here first.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import plans

if TYPE_CHECKING:
    from plans import Plan

LENGTH, CHARACTERS = 32, 128


def build_plan(seed: int = 0) -> Plan:
    """Trace the plan."""
    import torch  # noqa: PLC0415 - a node that imports this file for its name needs no torch
    from torch import nn  # noqa: PLC0415

    class NextCharacter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(CHARACTERS, 24)
            self.read = nn.GRU(24, 64, batch_first=True)
            self.choose = nn.Linear(64, CHARACTERS)

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            return self.choose(self.read(self.embed(text))[0][:, -1])

    torch.manual_seed(seed)
    return plans.trace(
        NextCharacter(),
        loss="cross_entropy",
        optimizer=plans.Adam(lr=0.005),
        inputs={"text": plans.Field("int64", (LENGTH,), below=CHARACTERS)},
        targets={"next": plans.Field("int64")},
        metrics=["accuracy"],
        clip_norm=1.0,
        name="next-character",
        version="1",
        description="The character that follows 32 characters of ASCII text.",
    )


def load() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Windows of the licence text: the first nine tenths to train on, the rest held out."""
    found = [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt", Path(__file__).parents[1] / "LICENSE"]
    windows = windows_of(next(path for path in found if path.exists()).read_bytes())
    cut = len(windows) * 9 // 10
    parts = windows[: cut - LENGTH], windows[cut:]
    return tuple({"text": part[:, :-1].copy(), "next": part[:, -1].copy()} for part in parts)


def windows_of(text: bytes) -> np.ndarray:
    """Every stretch of 33 characters of a text, int64 [N, 33]."""
    codes = np.frombuffer(bytes(byte for byte in text if byte < CHARACTERS), np.uint8).astype(np.int64)
    return np.lib.stride_tricks.sliding_window_view(codes, LENGTH + 1, writeable=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="text.plan")
    parser.add_argument("--try", action="store_true", dest="attempt")
    arguments, plan = parser.parse_args(), build_plan()
    print(f"{plan.save(arguments.out)}: {plan.manifest.parameter_count} parameters, digest {plan.digest}")
    if arguments.attempt:
        train, held_out = load()
        executor, start = plans.Executor(plan), [plan.initial(r) for r in ("theta", "optimizer_state", "buffers")]
        done = executor.train(*start, train, batch_size=32, epochs=2, learning_rate=0.005, seed=b"try")
        print(f"held-out accuracy {executor.evaluate(done.theta, done.buffers, held_out).mean('accuracy'):.2f}")

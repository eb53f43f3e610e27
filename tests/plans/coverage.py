"""What traces, how close it comes to eager PyTorch, and how fast: `python -m tests.plans.coverage` writes the table.

Each row trains ten steps of 32 examples both ways. The difference is |plan - PyTorch| of theta, relative to |PyTorch|
and, stricter, to the way that training went, |PyTorch - start|. The time is PyTorch's per step divided by the plan's,
one thread, medians.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import plans
from tests.plans.against_pytorch import example_data, torch_optimizer, train_both
from tests.plans.keras_models import KERAS_MODELS, Twin, with_twin
from tests.plans.test_fine_tuning import bert, distilbert, gpt2, vit
from tests.plans.test_layers import LAYERS
from tests.plans.test_training_equals_pytorch import FLAT, LABEL, OPTIMIZERS, mlp
from tests.plans.zero_gradients import in_float64, moved_by_rounding

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
STEPS, BATCH = 10, 32
LAYER_OPTIMIZERS = {"momentum": OPTIMIZERS["momentum"], "adam": OPTIMIZERS["adam"]}


def rows():
    """(what, optimizer's name) of every row, in order."""
    return [
        *((name, optimizer) for name in (*LAYERS, *MODELS) for optimizer in LAYER_OPTIMIZERS),
        *(("mlp", name) for name in OPTIMIZERS),
    ]


MODELS = {
    "transformers: BERT": lambda: alone(*bert(transformers)),
    "transformers: DistilBERT": lambda: alone(*distilbert(transformers)),
    "transformers: GPT-2": lambda: alone(*gpt2(transformers)),
    "transformers: ViT": lambda: alone(*vit(transformers)),
    **{f"Keras: {name}": partial(with_twin, name) for name in KERAS_MODELS},
}


def alone(model, inputs):
    """A model that is its own reference."""
    return model, model, inputs


def model_of(name):
    """(what is traced, the PyTorch module to compare with, the fields it reads)."""
    torch.manual_seed(4)
    if name == "mlp":
        return alone(mlp(), FLAT)
    if name in MODELS:
        return MODELS[name]()
    inputs, make = LAYERS[name]
    model = nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(3))
    (field,) = inputs.values()
    model(torch.zeros((2, *field.shape), dtype=getattr(torch, field.dtype)))
    return alone(model, inputs)


@dataclass(frozen=True)
class Row:
    """Differences of parameters that have a gradient: to PyTorch, relative to theta and to its way, and of both to
    PyTorch in float64; how many have no gradient but move; difference of losses.
    """

    theta: float
    parameters: float
    exact: float
    rounding: float
    noise: int
    loss: float
    speed: float


def measured(name, optimizer, turns=31):
    """Train both ways and compare."""
    model, twin, inputs = model_of(name)
    both = train_both(
        model,
        twin=twin,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=optimizer,
        inputs=inputs,
        targets=LABEL,
        examples=STEPS * BATCH,
        batch_size=BATCH,
        epochs=1,
    )
    if isinstance(twin, Twin):  # Keras computes in float32 whatever its variables are
        theta, noise = np.full(len(both.theta), np.nan), np.zeros(len(both.theta), bool)
    else:
        theta, largest = in_float64(twin, F.cross_entropy, optimizer, both.plan, both.data, both.settings)
        noise = moved_by_rounding(both, largest)
    return Row(
        float(np.linalg.norm((both.by_plan.theta - both.theta)[~noise]) / np.linalg.norm(both.theta[~noise])),
        both.error_of(~noise),
        distance(both, both.by_plan.theta, theta, ~noise),
        distance(both, both.theta, theta, ~noise),
        int(noise.sum()),
        loss_difference(both),
        ratio(both.plan, twin, optimizer, turns),
    )


def distance(both, one, other, chosen):
    """|one - other| relative to the way that training went."""
    moved = (both.theta - both.plan.initial("theta"))[chosen]
    return float(np.linalg.norm((one - other)[chosen]) / np.linalg.norm(moved))


def loss_difference(both):
    """How far apart both trained models' losses are, relative: parameters that change nothing do not count."""
    executor, data = plans.Executor(both.plan), example_data(both.plan, 256, seed=1)
    buffers = [b.numpy().ravel() for b in both.model.buffers() if b.is_floating_point()]
    travelled = np.concatenate(buffers) if both.plan.manifest.buffer_count else both.by_plan.buffers
    by_plan = executor.evaluate(both.by_plan.theta, both.by_plan.buffers, data).mean("loss")
    eager = executor.evaluate(both.theta, travelled, data).mean("loss")
    return abs(by_plan - eager) / eager


def ratio(plan, model, optimizer, turns):
    data = example_data(plan, STEPS * BATCH)
    executor, start = plans.Executor(plan), [plan.initial(r) for r in ("theta", "optimizer_state", "buffers")]
    twin = copy.deepcopy(model).train()
    stepper = torch_optimizer(optimizer, [p for p in twin.parameters() if p.requires_grad])
    tensors = {name: torch.from_numpy(array) for name, array in data.items()}
    batches = np.arange(STEPS * BATCH).reshape(STEPS, BATCH)
    rates = np.full(STEPS, optimizer.lr, np.float32)

    def eager():
        for row in batches:
            index = torch.from_numpy(row)
            stepper.zero_grad()
            given = [tensors[field.name][index] for field in plan.manifest.inputs]
            F.cross_entropy(twin(*given), tensors["label"][index]).backward()
            stepper.step()

    seconds = {"eager": [], "plan": []}
    for turn in range(turns + 1):
        for way, run in (("eager", eager), ("plan", lambda: executor.call_train(start, data, batches, rates, 0))):
            began = time.perf_counter()
            run()
            if turn:  # the first warms up
                seconds[way].append(time.perf_counter() - began)
    return statistics.median(seconds["eager"]) / statistics.median(seconds["plan"])


def main():
    logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    lines = []
    for name, optimizer in rows():
        kind = OPTIMIZERS[optimizer]
        row = measured(name, kind)
        lines.append(
            f"| {name} | {optimizer} | {row.theta:.1e} | {row.parameters:.1e} | {row.exact:.1e} | {row.rounding:.1e} "
            f"| {row.noise} | {row.loss:.1e} | {row.speed:.2f} |"
        )
        print(lines[-1], flush=True)  # noqa: T201 - progress of a script
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


HEAD = """# What traces

Written by `python -m tests.plans.coverage`; `tests/plans` holds each layer and model against PyTorch on every run.
Ten steps of 32 examples, cross-entropy; after a layer comes a Linear layer.

- *of theta*: |plan - PyTorch| / |PyTorch| after ten steps, over all parameters but those of *noise*.
- *to PyTorch*: the same relative to |PyTorch - start|, the way that training went; stricter.
- *to float64*: as *to PyTorch*, with PyTorch's training in float64 in its place; then how far PyTorch's float32
  is from that. Keras does not compute in float64: nan. One row is above 1e-4: GPT-2 with Adam starts where two of its
  7,648 gradients are 8e-9 and 4e-8, what is left of terms that cancel to a millionth; Adam's eps is 1e-8, so rounding
  decides their first step, in PyTorch more than in the plan (tests/plans/test_coverage_page.py).
- *noise*: how many parameters are left out because they have no gradient, yet move. The bias before BatchNorm and
  the key biases of attention cannot change the loss. In float64 their gradients stay below 1e-12 in all ten steps; in
  float32 rounding makes noise of them, of which Adam makes full steps. PyTorch's noise and the plan's differ.
- *loss*: relative difference of both trained models' losses on other data, with all parameters as they are. Before
  BatchNorm the noise shows a little, since the running mean lags behind the bias.
- *speed*: PyTorch's time per step divided by the plan's, one thread. These models are tiny, so it shows overhead
  rather than arithmetic; `benchmarks/plan_step.py` has larger ones. One run, with nothing else running.

| model or layer | optimizer | of theta | to PyTorch | to float64 | PyTorch to float64 | noise | loss | speed |
|---|---|---|---|---|---|---|---|---|
"""


if __name__ == "__main__":
    main()

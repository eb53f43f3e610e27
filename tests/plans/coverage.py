"""What traces, how close it comes to eager PyTorch, and how fast: `python -m tests.plans.coverage` writes the table.

Each row trains ten steps of 32 examples both ways. The difference is |plan - PyTorch| / |PyTorch - start| of theta,
stricter than relative to theta itself. The time is PyTorch's per step divided by the plan's, one thread, medians.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import plans
from tests.plans.against_pytorch import example_data, torch_optimizer, train_both
from tests.plans.test_layers import LAYERS
from tests.plans.test_training_equals_pytorch import FLAT, LABEL, OPTIMIZERS, mlp

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
STEPS, BATCH = 10, 32
LAYER_OPTIMIZERS = {"momentum": OPTIMIZERS["momentum"], "adam": OPTIMIZERS["adam"]}


def rows():
    """(what, optimizer's name) of every row, in order."""
    return [
        *((name, optimizer) for name in LAYERS for optimizer in LAYER_OPTIMIZERS),
        *(("mlp", name) for name in OPTIMIZERS),
    ]


def model_of(name):
    torch.manual_seed(4)
    if name == "mlp":
        return mlp(), FLAT
    inputs, make = LAYERS[name]
    model = nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(3))
    (field,) = inputs.values()
    model(torch.zeros((2, *field.shape), dtype=getattr(torch, field.dtype)))
    return model, inputs


def measured(name, optimizer):
    """(difference of parameters, of losses, PyTorch's time divided by the plan's)."""
    model, inputs = model_of(name)
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=optimizer,
        inputs=inputs,
        targets=LABEL,
        examples=STEPS * BATCH,
        batch_size=BATCH,
        epochs=1,
    )
    return both.error, loss_difference(both), ratio(both.plan, model, optimizer)


def loss_difference(both):
    """How far apart both trained models' losses are, relative: parameters that change nothing do not count."""
    executor, data = plans.Executor(both.plan), example_data(both.plan, 256, seed=1)
    buffers = [b.numpy().ravel() for b in both.model.buffers() if b.is_floating_point()]
    travelled = np.concatenate(buffers) if both.plan.manifest.buffer_count else both.by_plan.buffers
    by_plan = executor.evaluate(both.by_plan.theta, both.by_plan.buffers, data).mean("loss")
    eager = executor.evaluate(both.theta, travelled, data).mean("loss")
    return abs(by_plan - eager) / eager


def ratio(plan, model, optimizer, turns=7):
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
        difference, loss, faster = measured(name, kind)
        lines.append(f"| {name} | {optimizer} | {difference:.1e} | {loss:.1e} | {faster:.2f} |")
        print(lines[-1], flush=True)  # noqa: T201 - progress of a script
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


HEAD = """# What traces

Written by `python -m tests.plans.coverage`; `tests/plans` holds each layer against PyTorch on every run. Ten steps of
32 examples, cross-entropy, a Linear layer after the one named.

- *parameters*: |plan - PyTorch| / |PyTorch - start| after ten steps.
- *loss*: relative difference of both trained models' losses on other data.
- *speed*: PyTorch's time per step divided by the plan's, one thread. These models are tiny, so it shows overhead
  rather than arithmetic; `benchmarks/plan_step.py` has larger ones. One run, on a shared machine.

Adam makes full steps out of the rounding noise of gradients that are zero: those of attention's key biases, and of
a bias before BatchNorm. PyTorch's noise and the plan's differ, so these parameters do; the loss shows how much that
matters (before BatchNorm a little, since its running mean lags behind the bias).

| model or layer | optimizer | parameters | loss | speed |
|---|---|---|---|---|
"""


if __name__ == "__main__":
    main()

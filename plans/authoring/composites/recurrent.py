"""LSTM and GRU, unrolled over the places of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plans.errors import TraceError

__all__ = ["gru", "lstm"]

Cell = Callable[[Tensor, Any, Tensor, "Tensor | None"], tuple[Tensor, Any]]
"""(gates of the input at one place, state, hidden weight, hidden bias) -> (hidden, state)."""


def _lstm_cell(gates: Tensor, state: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor | None) -> Any:
    """Hochreiter and Schmidhuber (1997) with forget gates; gates lie as input, forget, cell, output."""
    hidden, cell = state
    inner, forget, new, outer = (gates + functional.linear(hidden, weight, bias)).chunk(4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(inner) * torch.tanh(new)
    hidden = torch.sigmoid(outer) * torch.tanh(cell)
    return hidden, (hidden, cell)


def _gru_cell(gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    """Cho et al. (2014) as cuDNN has it: the reset gate acts on the product; gates lie as reset, update, new."""
    reset, update, new = gates.chunk(3, 1)
    hidden_reset, hidden_update, hidden_new = functional.linear(hidden, weight, bias).chunk(3, 1)
    fresh = torch.tanh(new + torch.sigmoid(reset + hidden_reset) * hidden_new)
    hidden = fresh + torch.sigmoid(update + hidden_update) * (hidden - fresh)
    return hidden, hidden


def lstm(value: Tensor, states: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.lstm`: outputs of the last layer, and the last hidden and cell states.

    Raises:
        TraceError: packed sequences, sequences without a batch, or projections.
    """
    if isinstance(states, torch.Tensor):
        raise TraceError("LSTM: packed sequences have no lowering; give a padded tensor and mask the loss")
    layers = list(zip(states[0].unbind(0), states[1].unbind(0), strict=True))
    output, last = _recurrent("LSTM", _lstm_cell, value, layers, *rest)
    return output, torch.stack([hidden for hidden, _ in last]), torch.stack([cell for _, cell in last])


def gru(value: Tensor, states: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """`torch.gru`: outputs of the last layer, and the last hidden states.

    Raises:
        TraceError: packed sequences, or sequences without a batch.
    """
    if isinstance(rest[0], torch.Tensor):
        raise TraceError("GRU: packed sequences have no lowering; give a padded tensor and mask the loss")
    output, last = _recurrent("GRU", _gru_cell, value, list(states.unbind(0)), *rest)
    return output, torch.stack(last)


def _recurrent(
    what: str,
    cell: Cell,
    value: Tensor,
    states: Sequence[Any],
    weights: Sequence[Tensor],
    biased: bool,  # noqa: FBT001 - PyTorch's order, as are those below
    layers: int,
    dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[Tensor, list[Any]]:
    """All layers over all places, unrolled: outputs as the layer gives them, and the last state of each direction."""
    if value.dim() != 3:
        raise TraceError(f"{what}: expected a batch of sequences, got rank {value.dim()}")
    directions, each = 2 if bidirectional else 1, 4 if biased else 2
    if len(weights) != layers * directions * each:
        raise TraceError(f"{what}: proj_size has no lowering; put a Linear after the layer instead")
    hidden, last = value.transpose(0, 1) if batch_first else value, []
    for layer in range(layers):
        if layer and dropout and train:
            hidden = functional.dropout(hidden, dropout, training=True)
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            own = weights[at * each : (at + 1) * each]
            output, state = _one_way(cell, hidden, states[at], own, backwards=direction == 1)
            outputs.append(output)
            last.append(state)
        hidden = outputs[0] if directions == 1 else torch.cat(outputs, -1)
    return hidden.transpose(0, 1) if batch_first else hidden, last


def _one_way(
    cell: Cell, value: Tensor, state: Any, weights: Sequence[Tensor], *, backwards: bool
) -> tuple[Tensor, Any]:
    """One layer in one direction over `value` [places, batch, features]."""
    of_input, of_hidden = weights[0], weights[1]
    input_bias, hidden_bias = (weights[2], weights[3]) if len(weights) == 4 else (None, None)
    gates = functional.linear(value, of_input, input_bias).unbind(0)
    outputs = []
    for place in reversed(gates) if backwards else gates:
        output, state = cell(place, state, of_hidden, hidden_bias)
        outputs.append(output)
    return torch.stack(outputs[::-1] if backwards else outputs), state

"""CTC loss: against PyTorch's own kernel, and against the sum over all alignments, written out."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import plans
from plans import Adam, Field
from plans.authoring.composites.alignment import ctc_loss
from plans.errors import TraceError
from tests.plans.against_pytorch import train_both

PLACES, CLASSES, LABELS, EXAMPLES = 6, 5, 3, 60
BLANK = CLASSES - 1


def examples(seed=0, places=PLACES):
    """Scores in float64, labels that are no blanks, and lengths: of labels from 0, of inputs too short for some."""
    torch.manual_seed(seed)
    scores = torch.randn(places, EXAMPLES, CLASSES, dtype=torch.float64)
    labels = torch.randint(0, BLANK, (EXAMPLES, LABELS))
    lengths = torch.randint(1, places + 1, (EXAMPLES,)), torch.randint(0, LABELS + 1, (EXAMPLES,))
    return scores, labels, *lengths


def with_gradient(loss, scores, *rest, **options):
    scores = scores.clone().requires_grad_()
    losses = loss(scores.log_softmax(-1), *rest, BLANK, **options)
    return losses.detach(), torch.autograd.grad(losses.sum(), scores)[0]


def places_needed(labels, count):
    """Each label takes a place, and so does the blank between two that are alike."""
    return count + sum(int(a == b) for a, b in itertools.pairwise(labels[:count]))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_and_gradients_are_pytorchs(reduction):
    scores, labels, lengths, counts = examples()
    options = {"reduction": reduction, "zero_infinity": True}
    want, want_gradient = with_gradient(F.ctc_loss, scores, labels, lengths, counts, **options)
    found, gradient = with_gradient(ctc_loss, scores, labels, lengths, counts, **options)
    assert torch.allclose(found, want, rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient, want_gradient, rtol=1e-10, atol=1e-12)
    assert gradient.abs().max() > 1e-3


def test_labels_that_do_not_fit_into_the_input_have_an_infinite_loss():
    scores, labels, lengths, counts = examples()
    want = F.ctc_loss(scores.log_softmax(-1), labels, lengths, counts, BLANK, reduction="none")
    found = ctc_loss(scores.log_softmax(-1), labels, lengths, counts, BLANK, reduction="none")
    short = [
        places_needed(y, n) > t for y, t, n in zip(labels.tolist(), lengths.tolist(), counts.tolist(), strict=True)
    ]
    assert 0 < sum(short) < EXAMPLES
    assert torch.isinf(found).tolist() == torch.isinf(want).tolist() == short


def test_the_loss_is_the_sum_over_all_alignments():
    scores, labels, lengths, counts = examples(seed=1, places=4)
    probabilities = scores.softmax(-1).numpy()
    found = ctc_loss(scores.log_softmax(-1), labels, lengths, counts, BLANK, reduction="none").numpy()
    for at in range(EXAMPLES):
        spelled = labels[at, : counts[at]].tolist()
        total = 0.0
        for path in itertools.product(range(CLASSES), repeat=int(lengths[at])):
            if [label for label, _ in itertools.groupby(path) if label != BLANK] == spelled:
                total += np.prod([probabilities[place, at, label] for place, label in enumerate(path)])
        assert np.exp(-found[at]) == pytest.approx(total, rel=1e-9)


def of_model(outputs, labels, counts, blank=BLANK):
    lengths = torch.full((outputs.shape[0],), PLACES)
    return F.ctc_loss(outputs.log_softmax(-1).transpose(0, 1), labels, lengths, counts, blank)


def test_a_plan_with_it_trains_as_in_pytorch():
    torch.manual_seed(0)
    both = train_both(
        nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, CLASSES)),
        loss=of_model,
        torch_loss=of_model,
        optimizer=Adam(lr=0.01),
        inputs={"x": Field("float32", (PLACES, 4))},
        targets={"labels": Field("int64", (LABELS,), below=BLANK), "counts": Field("int64", below=LABELS + 1)},
        check=True,
    )
    assert both.error < 1e-5
    assert both.by_plan.metrics.sums["loss"] == pytest.approx(sum(both.losses), rel=1e-5)


def trace(loss, below=BLANK):
    return plans.trace(
        nn.Linear(4, CLASSES), loss=loss, optimizer="sgd", inputs={"x": Field("float32", (PLACES, 4))},
        targets={"labels": Field("int64", (LABELS,), below=below), "counts": Field("int64", below=LABELS + 1)},
        name="t", version="1",
    )  # fmt: skip


def test_random_labels_that_are_blanks_ask_for_other_examples():
    """PyTorch does not say what their loss is."""
    with pytest.raises(TraceError, match=r"differs from PyTorch .* PyTorch does not define .*check=\{field: array\}"):
        trace(partial(of_model, blank=0), below=1)  # all random labels are 0


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda out, y, n: F.ctc_loss(out.transpose(0, 1), y.flatten(), torch.full_like(n, PLACES), n),
         r"targets is a tensor of rank 1, expected a tensor \[batch, most labels\]"),
        (lambda out, y, n: F.ctc_loss(out.transpose(0, 1), y, (PLACES,) * 32, n),
         r"input_lengths is tuple, expected a tensor \[batch\]"),
        (lambda out, y, n: F.ctc_loss(out[0], y, torch.full_like(n, PLACES), n),
         r"log_probs has rank 2, expected \[places, batch, classes\]"),
    ],
)  # fmt: skip
def test_forms_that_do_not_say_what_belongs_to_an_example_are_refused(loss, message):
    with pytest.raises(TraceError, match=message):
        trace(loss)

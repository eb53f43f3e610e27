"""Ordinary mistakes: each error says in which module and line, why, and what to write instead."""

import inspect
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import plans
from plans import SGD, Field
from plans.errors import TraceError
from tests.plans.against_pytorch import train_both

X, Y = {"x": Field("float32", (6,))}, {"y": Field("int64")}
SETTINGS = {"loss": "cross_entropy", "optimizer": "sgd", "inputs": X, "targets": Y, "name": "t", "version": "1"}


class Around(nn.Module):
    """The mistake stands in the second module of a block."""

    def __init__(self, mistake):
        super().__init__()
        self.head = nn.Linear(6, 6)
        self.block = nn.Sequential(nn.ReLU(), mistake)
        self.tail = nn.Linear(6, 3)

    def forward(self, x):
        return self.tail(self.block(self.head(x)))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Looping(nn.Module):
    def forward(self, x):
        while x.norm() > 1: x = x / 2  # fmt: skip  # noqa: E701
        return x


class TakingAnItem(nn.Module):
    def forward(self, x):
        return x * x.abs().max().item()


class Printing(nn.Module):
    def forward(self, x):
        print(float(x.mean()))  # noqa: T201
        return x


class UsingNumpy(nn.Module):
    def forward(self, x):
        return x + torch.from_numpy(np.tanh(x.detach().numpy()))


class UsingLists(nn.Module):
    def forward(self, x):
        return x + torch.tensor(x.tolist())


class WritingInPlace(nn.Module):
    def forward(self, x):
        x[:, 0] = 0
        return x


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.special.i0(x)


class Sorting(nn.Module):
    def forward(self, x):
        return torch.sort(x, -1)[0]


class FixingTheBatch(nn.Module):
    def forward(self, x):
        return x.view(32, 6)


class GoingExampleByExample(nn.Module):
    def forward(self, x):
        return torch.stack([row * 2 for row in x])


class DrawingFromPython(nn.Module):
    def forward(self, x):
        return x * random.random()


class DrawingFromNumpy(nn.Module):
    def forward(self, x):
        return x + float(np.random.randn())  # noqa: NPY002


class DrawingNormals(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class OnAGraphicsCard(nn.Module):
    def forward(self, x):
        return x.cuda()


class Halving(nn.Module):
    def forward(self, x):
        return x.half().float()


class Failing(nn.Module):
    def forward(self, _x):
        raise ValueError("my own words")


class WritingByAMask(nn.Module):
    def forward(self, x):
        return x.index_put((x < 0,), torch.zeros(()))


class Inverting(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x[:, :4].reshape(-1, 2, 2)).reshape(-1, 4).repeat(1, 2)[:, :6]


class OfAnotherShape(nn.Module):
    def forward(self, x):
        return x @ torch.zeros(5, 6)


VALUE = "asks for a value while only shapes are known; write torch.where instead of if, and keep numbers as tensors"
NUMPY = "leaves PyTorch, where neither a graph nor a gradient follows it; use functions of torch instead of numpy"
BATCH = "use x.shape[0] or -1, as in view(-1, 8), so that any batch size works"
DRAWN = "a plan would keep the number that came up while it was traced; use torch.rand or nn.Dropout"
MISTAKES = {
    Branching: VALUE,
    Looping: VALUE,
    TakingAnItem: "keep numbers as tensors instead of float(), .item() or print",
    Printing: VALUE,
    UsingNumpy: NUMPY,
    UsingLists: NUMPY,
    WritingInPlace: "writes into a tensor that its gradient needs; make a new tensor, as in y = x + 1 instead of",
    Unsupported: "aten.i0.default has no lowering to ONNX",
    Sorting: "aten.sort.default has no lowering to ONNX",
    FixingTheBatch: BATCH,
    GoingExampleByExample: BATCH,
    DrawingFromPython: DRAWN,
    DrawingFromNumpy: DRAWN,
    DrawingNormals: "aten.randn_like.default has no lowering to ONNX",
    OnAGraphicsCard: "plans run on processors; leave .cuda() and .to(device) out of forward",
    Halving: "dtype torch.float16 is not used in plans; expected float32",
    Failing: "ValueError: my own words",
    WritingByAMask: "with a mask write torch.where(mask, new, old) instead",
    Inverting: "use products of matrices, or do this part outside the plan",
    OfAnotherShape: "a and b must have same reduction dim, but got [batch, 6] X [5, 6]",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda kind: kind.__name__)
def test_an_error_names_the_module_the_line_the_reason_and_the_way_out(mistake, capfd):
    with pytest.raises(TraceError) as caught:
        plans.trace(Around(mistake()), **SETTINGS)
    message = str(caught.value)
    assert MISTAKES[mistake] in message
    assert f"in module block.1, a {mistake.__name__}" in message
    first = inspect.getsourcelines(mistake.forward)[1]
    assert any(f'File "{__file__}", line {line}' in message for line in (first, first + 1)), message
    assert len(message.splitlines()) == 1
    assert capfd.readouterr() == ("", "")  # nothing of PyTorch's own logs


@pytest.mark.parametrize(
    ("operator", "advice"),
    [(Sorting, "use torch.topk"), (DrawingNormals, "torch.rand or nn.Dropout"), (Unsupported, "docs/coverage.md")],
)
def test_an_operator_without_lowering_comes_with_what_to_use_instead(operator, advice):
    with pytest.raises(TraceError, match=f"has no lowering .*; .*{advice}"):
        plans.trace(Around(operator()), **SETTINGS)


class Doubling(nn.Module):
    def forward(self, x):
        return x.double()


OPTIONS = {
    "open shape": (lambda: {"inputs": {"x": Field("float32", (-1, 6))}}, "pad what varies to its longest"),
    "no target": (lambda: {"targets": {}}, "targets: expected at least one field, got none"),
    "labels of floats": (lambda: {"targets": {"y": Field("float32")}}, "reads int64 labels, target 'y' is float32"),
    "whole numbers into a Linear layer": (
        lambda: {"inputs": {"x": Field("int64", (6,))}},
        "in the model, a Linear.*give a field of dtype float32, or write x.float",
    ),
    "another width": (
        lambda: {"inputs": {"x": Field("float32", (7,))}},
        r"in the model, a Linear\): .*got \[batch, 7\] X \[6, 3\]",
    ),
    "a field too many": (
        lambda: {"inputs": X | {"z": Field("float32", (6,))}},
        r"in the model, a Linear\): .*takes 2 positional arguments but 3 were given; let it take one tensor for each",
    ),
    "dtypes that do not meet": (
        lambda: {"model": Around(Doubling())},
        "in module tail, a Linear.*different dtypes, and plans compute in float32; .* write x.float",
    ),
    "LBFGS": (
        lambda: {"optimizer": torch.optim.LBFGS(nn.Linear(6, 3).parameters())},
        r"LBFGS is unknown \(it asks for the loss several times a step\), expected plans.SGD, plans.Adam",
    ),
    "an optimizer of PyTorch": (
        lambda: {"optimizer": torch.optim.Adam},
        r"optimizer torch.optim.adam.Adam is unknown, expected plans.SGD, plans.Adam, plans.RMSprop",
    ),
    "a loss per example": (lambda: {"loss": nn.CrossEntropyLoss(reduction="none")}, r"the loss gives \[batch\], exp"),
    "a loss without target": (lambda: {"loss": lambda out: out.mean()}, r"\(in the loss\): TypeError"),
    "a loss that is a number": (
        lambda: {"loss": lambda out, y: float(out.mean())},
        "in the loss, File .*torch.where",
    ),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_do_not_fit_are_refused_with_what_to_write(options, message):
    with pytest.raises(TraceError, match=message) as caught:
        plans.trace(**({"model": nn.Linear(6, 3)} | SETTINGS | options()))
    assert len(str(caught.value).splitlines()) == 1


class WritingIntoItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        x.mul_(2)
        x[:, 0] = 1
        return self.inner(x)


class LargestOfAll(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        out = self.inner(x)
        return out / (out.max() - out.min())


@pytest.mark.parametrize("model", [WritingIntoItsInput, LargestOfAll])
def test_what_looks_like_a_mistake_but_is_none_trains_as_in_pytorch(model):
    torch.manual_seed(0)
    both = train_both(
        model(), loss="cross_entropy", torch_loss=F.cross_entropy, optimizer=SGD(lr=0.1), inputs=X, targets=Y,
        check=True,
    )  # fmt: skip
    assert both.error < 1e-5

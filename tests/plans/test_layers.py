import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from plans import SGD, Field
from plans.authoring.lowering import pooling
from tests.plans.against_pytorch import train_both

IMAGE = {"x": Field("float32", (4, 8, 8))}
VECTOR = {"x": Field("float32", (12,))}
SEQUENCE = {"x": Field("float32", (5, 6))}
TOKENS = {"x": Field("int64", (5,), below=11)}


class First(nn.Module):
    """The first of a recurrent layer's results, and its last position."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0].flatten(1)


class Decoder(nn.Module):
    """A transformer decoder block with a causal mask."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerDecoderLayer(6, 2, 12, dropout=0.1, batch_first=True)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.inner(x.flip(1), x, tgt_mask=mask, tgt_is_causal=True)


class Paired(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Bilinear(12, 12, 5)

    def forward(self, x):
        return self.inner(x, x.flip(1))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder, transposed."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(12, 5)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.inner(x)), self.inner.weight.t())


LAYERS = {
    "strided": (IMAGE, lambda: nn.Conv2d(4, 6, 3, stride=2)),
    "strided with rest": (IMAGE, lambda: nn.Conv2d(4, 6, 3, stride=3, padding=1)),
    "dilated": (IMAGE, lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2)),
    "uneven kernel": (IMAGE, lambda: nn.Conv2d(4, 6, (1, 3), padding=(0, 1))),
    "no bias": (IMAGE, lambda: nn.Conv2d(4, 6, 3, bias=False)),
    "grouped": (IMAGE, lambda: nn.Conv2d(4, 6, 3, groups=2)),
    "depthwise": (IMAGE, lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1)),
    "many channels": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 9, 1), nn.ReLU(), nn.Conv2d(9, 5, 3, groups=1))),
    "wide 5x5": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 5, padding=2))),
    "wide 3x3": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 3))),
    "transposed": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 3, 1), nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1)),
    ),
    "convolution 1d": (SEQUENCE, lambda: nn.Sequential(nn.Conv1d(5, 7, 3), nn.ReLU(), nn.Conv1d(7, 4, 2))),
    "relu then max pool": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))),
    "max pool then relu": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(4), nn.ReLU())),
    "adaptive average": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1))),
    "layer norm": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8))),
    "group norm": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6))),
    "rms norm": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.RMSNorm(8))),
    "gelu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.GELU())),
    "gelu tanh": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.GELU("tanh"))),
    "silu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.SiLU())),
    "elu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.ELU())),
    "selu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.SELU())),
    "leaky relu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.LeakyReLU(0.2))),
    "softplus": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Softplus())),
    "tanh": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Tanh())),
    "sigmoid": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Sigmoid())),
    "hardswish": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Hardswish())),
    "embedding": (TOKENS, lambda: nn.Sequential(nn.Embedding(11, 6, padding_idx=0), nn.Flatten())),
    "rnn": (SEQUENCE, lambda: First(nn.RNN(6, 4, batch_first=True))),
    "gru": (SEQUENCE, lambda: First(nn.GRU(6, 4, batch_first=True))),
    "lstm": (SEQUENCE, lambda: First(nn.LSTM(6, 4, batch_first=True))),
    "gru of two layers": (SEQUENCE, lambda: First(nn.GRU(6, 4, 2, batch_first=True, dropout=0.3))),
    "lstm both ways": (SEQUENCE, lambda: First(nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True))),
    "lstm without bias": (SEQUENCE, lambda: First(nn.LSTM(6, 4, bias=False, batch_first=True))),
    "dropout": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Dropout(0.4), nn.ReLU(), nn.Dropout(0.1))),
    "dropout 2d": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Dropout2d(0.4))),
    "alpha dropout": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.AlphaDropout(0.3))),
    "batch norm 1d": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8))),
    "batch norm 2d": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, momentum=0.3), nn.ReLU())),
    "batch norm alone": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False, track_running_stats=False)),
    ),
    "instance norm": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True))),
    "embedding bag": (TOKENS, lambda: nn.EmbeddingBag(11, 6, mode="mean")),
    "embedding bag sum": (TOKENS, lambda: nn.EmbeddingBag(11, 6, mode="sum", padding_idx=2)),
    "embedding bag max": (TOKENS, lambda: nn.EmbeddingBag(11, 6, mode="max")),
    "average of what is there": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    ),
    "average rounded up": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(3, 2, ceil_mode=True)),
    ),
    "average by a divisor": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(2, divisor_override=3)),
    ),
    "average 1d": (SEQUENCE, lambda: nn.Sequential(nn.Conv1d(5, 7, 3), nn.AvgPool1d(2))),
    "adaptive average to many": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AdaptiveAvgPool2d(3)),
    ),
    "adaptive max": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AdaptiveMaxPool2d(2))),
    "max pool 1d": (SEQUENCE, lambda: nn.Sequential(nn.Conv1d(5, 7, 3), nn.MaxPool1d(2))),
    "convolution 3d": (
        {"x": Field("float32", (2, 4, 4, 4))},
        lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.ReLU(), nn.Conv3d(3, 2, 2)),
    ),
    "transposed in groups": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1)),
    ),
    "nearest upsampling": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2))),
    "bilinear upsampling": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
    ),
    "prelu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.PReLU())),
    "mish": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Mish())),
    "relu6": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU6())),
    "hardtanh": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Hardtanh())),
    "hardsigmoid": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Hardsigmoid())),
    "softsign": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Softsign())),
    "log sigmoid": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.LogSigmoid())),
    "celu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.CELU())),
    "glu": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.GLU())),
    "softmax": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Softmax(-1))),
    "log softmax": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.LogSoftmax(-1))),
    "hardshrink": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Hardshrink())),
    "softshrink": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Softshrink())),
    "tanhshrink": (VECTOR, lambda: nn.Sequential(nn.Linear(12, 8), nn.Tanhshrink())),
    "bilinear": (VECTOR, Paired),
    "pixel shuffle": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.PixelShuffle(2))),
    "weight norm": (VECTOR, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(12, 8))),
    "tied weights": (VECTOR, Tied),
    "encoder with dropout": (
        SEQUENCE,
        lambda: nn.TransformerEncoderLayer(6, 2, 12, dropout=0.2, batch_first=True, norm_first=True),
    ),
    "decoder block": (SEQUENCE, Decoder),
    "attention": (SEQUENCE, Attention),
    "encoder block": (
        SEQUENCE,
        lambda: nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True),
    ),
}


@pytest.mark.parametrize(("inputs", "make"), LAYERS.values(), ids=LAYERS)
def test_layer_trains_as_in_pytorch(inputs, make):
    torch.manual_seed(4)
    model = nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(3))
    (field,) = inputs.values()
    model(torch.zeros((2, *field.shape), dtype=getattr(torch, field.dtype)))
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=SGD(lr=0.05),
        inputs=inputs,
        targets={"y": Field("int64")},
    )
    assert both.error < 2e-5
    if both.plan.manifest.buffer_count:
        assert both.buffer_error < 2e-5


@pytest.mark.parametrize("relu", [True, False])
def test_the_first_of_equal_elements_gets_the_gradient_of_max_pooling(relu):
    """Flat images make whole windows equal: the case that indices decide."""
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU() if relu else nn.Identity(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(Quantised(), *layers, nn.Linear(3 * 16, 3))
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=SGD(lr=0.5),
        inputs={"x": Field("float32", (1, 8, 8))},
        targets={"y": Field("int64")},
    )
    assert both.error < 1e-5


class Quantised(nn.Module):
    """Most of an image becomes zero, so that neighbours are equal after a convolution."""

    def forward(self, x):
        return (x > 1.5).to(x.dtype)


def test_window_matrices_find_the_first_largest():
    spread, alone = pooling._window_matrices(2, 1)
    assert spread.tolist() == [[1, 1, 1, 1]]
    assert (np.array([1, 0, 1, 1]) @ alone).tolist() == [1, -1, 0, -1]

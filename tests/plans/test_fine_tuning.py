"""Models of transformers, small and random, and adapters on them: what an author would fine-tune."""

import copy

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import plans
from plans import Adam, Field
from plans.errors import TraceError
from tests.plans.against_pytorch import train_both

TOKENS = {"tokens": Field("int64", (8,), below=50)}
LABEL = {"label": Field("int64")}


class Logits(nn.Module):
    """A model of transformers as a function of one tensor to one tensor."""

    def __init__(self, inner, *, last=False):
        super().__init__()
        self.inner, self.last = inner, last

    def forward(self, x):
        logits = self.inner(x).logits
        return logits[:, -1] if self.last else logits


def bert(hf):
    config = hf.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )
    return Logits(hf.BertForSequenceClassification(config)), TOKENS


def gpt2(hf):
    config = hf.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return Logits(hf.GPT2LMHeadModel(config), last=True), TOKENS


def distilbert(hf):
    config = hf.DistilBertConfig(
        vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=16, num_labels=3
    )
    return Logits(hf.DistilBertForSequenceClassification(config)), TOKENS


def vit(hf):
    config = hf.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return Logits(hf.ViTForImageClassification(config)), {"image": Field("float32", (3, 8, 8))}


@pytest.mark.parametrize("make", [bert, gpt2, distilbert, vit])
def test_models_of_transformers_train_as_in_pytorch(make):
    """Plain SGD: Adam would show the noise of gradients that are zero, such as those of key biases."""
    torch.manual_seed(0)
    model, inputs = make(transformers)
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=plans.SGD(lr=0.1, momentum=0.5),
        inputs=inputs,
        targets=LABEL,
        epochs=2,
    )
    assert both.error < 1e-4


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.block = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens):
        return self.head(self.block(self.embed(tokens)).mean(1))


def adapted():
    torch.manual_seed(0)
    return plans.lora(Base(), ["block.linear*"], rank=2, alpha=4.0, train=["head.*"])


def test_only_adapters_and_the_named_head_travel():
    model = adapted()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names == [
        *(f"block.linear{at}.{part}" for at in (1, 2) for part in ("down", "up")),
        "head.weight",
        "head.bias",
    ]
    plan = plans.trace(
        model, loss="cross_entropy", optimizer="adam", inputs=TOKENS, targets=LABEL, name="t", version="1"
    )
    assert plan.manifest.parameter_count == 2 * (2 * 12 + 2 * 24) + 39
    assert plan.manifest.frozen_count == sum(p.numel() for p in model.parameters()) - plan.manifest.parameter_count


def test_adapters_begin_as_the_base_and_train_as_in_pytorch():
    model = adapted()
    base = copy.deepcopy(model)
    tokens = torch.arange(16).reshape(2, 8)
    torch.manual_seed(0)
    assert torch.allclose(Base().eval()(tokens), base.eval()(tokens), atol=1e-6)
    both = train_both(
        model,
        loss="cross_entropy",
        torch_loss=F.cross_entropy,
        optimizer=Adam(lr=0.01),
        inputs=TOKENS,
        targets=LABEL,
    )
    assert both.error < 1e-4
    assert np.abs(both.by_plan.theta).max() > 0


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (["block.line*"], {"rank": 12}, "rank 12 on block.linear1, a layer of 12 x 24; expected 1 <= rank < 12"),
        (["query"], {}, "no linear layer is named 'query'; there are block.self_attn.out_proj, block.linear1"),
        (["block.linear1"], {"train": ["tail.*"]}, "no parameter is named 'tail.*'"),
    ],
)
def test_adapters_that_fit_nowhere_are_refused(layers, options, message):
    with pytest.raises(TraceError) as caught:
        plans.lora(Base(), layers, **options)
    assert message in str(caught.value)

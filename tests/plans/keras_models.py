"""Keras models for tests, on the torch backend, and the same models as plain PyTorch modules to compare with."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"  # read once, when keras is imported

import keras
import numpy as np
import torch
from torch import nn

from plans import Field

layers = keras.layers


def sequential():
    """Dense layers with everything that draws numbers or keeps statistics."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(momentum=0.7),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )


def functional():
    """A convolutional network with two branches that meet again."""
    image = keras.Input((8, 8, 2))
    one = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    other = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="gelu")(image)
    joined = layers.MaxPooling2D()(layers.add([one, other]))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(joined)))


def recurrent():
    """Tokens through an embedding and a GRU."""
    tokens = keras.Input((5,), dtype="int64")
    return keras.Model(tokens, layers.Dense(3)(layers.GRU(4)(layers.Embedding(11, 6)(tokens))))


def attention():
    """A block of attention with a residual and LayerNormalization.

    Without biases: that of the keys has no gradient, which only float64 could tell, and Keras computes in float32.
    """
    sequence = keras.Input((5, 6))
    attended = layers.MultiHeadAttention(2, 3, use_bias=False)(sequence, sequence)
    normed = layers.LayerNormalization()(layers.add([sequence, attended]))
    return keras.Model(sequence, layers.Dense(3)(layers.GlobalAveragePooling1D()(normed)))


KERAS_MODELS = {
    "Sequential": (sequential, {"x": Field("float32", (6,))}),
    "functional": (functional, {"x": Field("float32", (8, 8, 2))}),
    "GRU": (recurrent, {"x": Field("int64", (5,), below=11)}),
    "attention": (attention, {"x": Field("float32", (5, 6))}),
}


class Twin(nn.Module):
    """A Keras model called in the ordinary way, its tensors in Keras's order; copies have tensors of their own."""

    def __init__(self, build, weights):
        super().__init__()
        model = build()
        model.set_weights(weights)
        self.build = build
        object.__setattr__(self, "keras", model)
        self.trained = nn.ParameterList([variable.value for variable in model.trainable_variables])
        for at, variable in enumerate(model.non_trainable_variables):
            self.register_buffer(f"fixed{at}", variable.value.data)

    def forward(self, x):
        return self.keras(x, training=self.training)

    def __deepcopy__(self, memo):
        return Twin(self.build, self.keras.get_weights())


def with_twin(name):
    """(the Keras model, its twin, the fields it reads); weights are the same on every run."""
    build, inputs = KERAS_MODELS[name]
    keras.utils.set_random_seed(4)
    model = build()
    generator = np.random.default_rng(4)
    for variable in model.trainable_variables:  # a bias that is zero hides what is done to it
        variable.assign(variable.value + torch.from_numpy(0.1 * generator.standard_normal(variable.shape)).float())
    return model, Twin(build, model.get_weights()), inputs

"""ONNX Runtime with its reports to the vendor switched off.

The wheel of 1.31.1 for Linux sends reports over the network unless told otherwise: a lasting device id, the processor
and memory, names and operator sets of each model, run counts and errors. It queues them in the home folder's cache
from the import on, so the switch comes before it. This module alone imports `onnxruntime` (import-linter checks it);
others take it from here.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # inherited by child processes; read once, when the library is loaded

import onnxruntime

onnxruntime.disable_telemetry_events()  # for a program that imported it before this one did

__all__ = ["onnxruntime"]

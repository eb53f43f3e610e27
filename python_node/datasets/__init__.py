"""An owner's data: loaded whole, checked, split into a training part and a hold-out, and never sent anywhere."""

from __future__ import annotations

from python_node.datasets.dataset import Dataset
from python_node.datasets.loading import load_dataset, load_datasets_file
from python_node.datasets.table import ColumnGroup

__all__ = ["ColumnGroup", "Dataset", "load_dataset", "load_datasets_file"]

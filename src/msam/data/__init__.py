"""Data sets: embedded ones, ones from extras, and splits by seed."""

from msam.data.catalog import CATALOG, Dataset, find_dataset
from msam.data.splits import Arrays, Split, Splits, split_arrays

__all__ = ["CATALOG", "Arrays", "Dataset", "Split", "Splits", "find_dataset", "split_arrays"]

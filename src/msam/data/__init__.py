"""Data sets: embedded ones, ones from extras, ones built into a cache, and splits by seed."""

from msam.data.archives.idx import read_idx
from msam.data.named import Joined, from_mudata, join
from msam.data.published.recipes import PUBLISHED_RECIPES, PublishedRecipe
from msam.data.published.registry import PUBLISHED, PublishedSet
from msam.data.sets.built import BUILT, BuiltSet, find_built
from msam.data.sets.catalog import CATALOG, find_dataset
from msam.data.sets.coloured_digits import load_coloured_digits, split_coloured_digits
from msam.data.sets.colours import PALETTES
from msam.data.sets.dataset import Dataset
from msam.data.sets.emoji import Emoji, build_emoji, load_emoji
from msam.data.sets.fashion_mnist import FashionMnist, build_fashion_mnist, load_fashion_mnist
from msam.data.splits.arrays import Arrays, split_arrays
from msam.data.splits.dealing import split_rows
from msam.data.splits.sides import DisjointSets
from msam.data.splits.split import Split, Splits

__all__ = [
    "BUILT",
    "CATALOG",
    "PALETTES",
    "PUBLISHED",
    "PUBLISHED_RECIPES",
    "Arrays",
    "BuiltSet",
    "Dataset",
    "DisjointSets",
    "Emoji",
    "FashionMnist",
    "Joined",
    "PublishedRecipe",
    "PublishedSet",
    "Split",
    "Splits",
    "build_emoji",
    "build_fashion_mnist",
    "find_built",
    "find_dataset",
    "from_mudata",
    "join",
    "load_coloured_digits",
    "load_emoji",
    "load_fashion_mnist",
    "read_idx",
    "split_arrays",
    "split_coloured_digits",
    "split_rows",
]

"""A small task for the tests of training and comparison, with everything about it open to change."""

from typing import Any

import numpy as np

from msam.data import Arrays, split_arrays
from msam.fusion import EarlyFusion, late_fusion_mlp
from msam.training import Recipe, Task

BASE = Recipe(name="base", label="{base}")


def small_arrays(names: tuple[str, ...] = ("a", "b"), rows: int = 80) -> Arrays:
    generator = np.random.default_rng(5)
    target = np.arange(rows, dtype=np.int64) % 3
    inputs = {}
    for name in names:
        centres = generator.normal(size=(3, 4))
        inputs[name] = (centres[target] + generator.normal(size=(rows, 4))).astype(np.float32)
    return Arrays(inputs, target)


def small_task(names: tuple[str, ...] = ("a", "b"), *, early: bool = False, **options: Any) -> Task:
    arrays = small_arrays(names)
    build = EarlyFusion if early else late_fusion_mlp
    settings = {"epochs": 4, "batch_size": 16, **options}
    return Task(
        name="small",
        modalities=names,
        load=settings.pop("load", lambda seed: split_arrays(arrays, seed)),
        build_model=settings.pop("build_model", lambda: build(dict.fromkeys(names, 4), 3, width=6)),
        **settings,
    )

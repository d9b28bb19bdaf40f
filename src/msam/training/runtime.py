"""What surrounds a run: seeds, threads, versions, and what is measured of the machine."""

import os
import platform
import random
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from zlib import crc32

import numpy as np
import torch

from msam._version import __version__
from msam.contribution.nested import list_leaves
from msam.data import Splits


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and compute on one thread, so that a run gives the same numbers wherever it is scheduled.

    Args:
        seed: For torch's global generator.

    Yields:
        Nothing; the number of threads is given back afterwards, and the generator's state too.
    """
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def other_generators() -> dict[str, Any]:
    """Return the state of random number generators besides torch's, from which a task may draw.

    Returns:
        Of Python's ``random`` and of NumPy's legacy generator, in builtins.
    """
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}


def restore_other_generators(state: Mapping[str, Any]) -> None:
    """Put generators back.

    Args:
        state: What `other_generators` returned.
    """
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))


def fingerprint_of(splits: Splits) -> str:
    """Make a checksum of data that tells an order of rows, or of classes, from another one.

    Args:
        splits: Of a run's seed.

    Returns:
        Of 256 rows of each split, evenly spaced, and of the numbers of rows.
    """
    found = 0
    for split in (splits.train, splits.validation, splits.test):
        index = torch.linspace(0, len(split) - 1, min(len(split), 256)).long()
        for name, value in {**split.inputs, "": split.target}.items():
            found = crc32(f"{name}:{len(split)}".encode(), found)
            for leaf in list_leaves(value):
                rows = leaf[index].detach().cpu().contiguous()
                found = crc32(rows.view(torch.uint8).numpy().tobytes() if rows.numel() else b"", found)
    return f"{found:08x}"


def versions() -> dict[str, str]:
    """Tell the versions that a run's numbers depend on.

    Returns:
        Of msam, torch and Python.
    """
    return {"msam": __version__, "torch": torch.__version__, "python": platform.python_version()}


def machine() -> dict[str, str | int]:
    """Tell the machine that a run's times depend on, without naming it.

    Returns:
        Processor type, operating system and the number of cores.
    """
    return {"processor": platform.machine(), "system": platform.system(), "cores": os.cpu_count() or 1}


def peak_memory_mib() -> float:
    """Return the process's peak resident memory so far.

    Returns:
        Mebibytes.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)

"""Multimodal tables of cells, as mudata keeps them (the extra ``mudata``)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msam.data.named.join import Joined, join
from msam.data.named.tables import is_absent, show_ids
from msam.errors import InvalidTypeError, InvalidValueError, JoinWarning


def from_mudata(
    data: Any,
    target: str | None = None,
    groups: str | None = None,
    *,
    modalities: Sequence[str] = (),
    layers: Mapping[str, str] | None = None,
    measured: Mapping[str, Any] | None = None,
    require: Sequence[str] | Literal["all"] = (),
) -> Joined:
    """Join the modalities of a ``MuData`` by the names of their cells.

    Each modality's rows are found through its own ``obs_names``. The maps and masks that a ``MuData`` stores (``obsmap``,
    ``obsm[modality]``) are not looked at: they are those of its last ``update()``, and hand out other cells without a word
    after a modality was filtered or put into another order in place.

    Args:
        data: A ``MuData``, or a mapping of modality name -> ``AnnData``. It is not changed: values are copied, so that what
            scales them afterwards does not scale it.
        target: A column of ``obs``: the whole's, or else the modalities'. Where several have it, they must agree on each cell.
        groups: The same, of what cells have in common, such as the donor.
        modalities: Which; all if empty.
        layers: Modality name -> a layer to take in place of ``X``, or ``"obsm:KEY"`` for an embedding.
        measured: Modality name -> which features were measured in which cells, ``(cells, features)``, boolean: a DataFrame with
            these names, an array in the modality's own order, or a layer's name. An outer concatenation of sparse tables fills
            what was not measured with zeros, which look like measurements and cannot be told from them afterwards. By this mask
            a cell without any measured feature lacks the modality, and features that were not measured in all others are left
            out.
        require: As of `join`.

    Returns:
        The cells, as `join` gives them.

    Raises:
        InvalidTypeError: If `data` is neither.
        InvalidValueError: If a name is unknown, a cell's label differs between modalities, or as `join`.

    Cost: a dense copy of each modality, in single precision.

    Source: mudata 0.3, Bredikhin et al., "MUON: multimodal omics analysis framework", Genome Biology 2022.
    """
    tables = dict(getattr(data, "mod", data) if hasattr(data, "mod") or isinstance(data, Mapping) else {})
    if not tables:
        raise InvalidTypeError(f"data must be a MuData, or a mapping of modality name -> AnnData, found {type(data).__name__}")
    modalities = (modalities,) if isinstance(modalities, str) else modalities
    for what, names in (("modalities", modalities), ("layers", layers or ()), ("measured", measured or ())):
        unknown = [name for name in names if name not in tables]
        if unknown:
            raise InvalidValueError(f"{what} must name modalities of {list(tables)}, found {unknown}")
    chosen = {name: tables[name] for name in modalities or tables}
    frames = {
        name: _frame(name, table, (layers or {}).get(name), None if measured is None else measured.get(name))
        for name, table in chosen.items()
    }
    whole = data if hasattr(data, "mod") else None
    return join(
        frames,
        None if target is None else _column(target, whole, chosen),
        None if groups is None else _column(groups, whole, chosen),
        require=require,
    )


def _frame(name: str, table: Any, layer: str | None, measured: Any) -> Any:
    import pandas as pd  # of the extra

    values, columns = _values(name, table, layer)
    if measured is not None:
        mask = _mask(name, table, measured)
        if mask.shape != values.shape:
            raise InvalidValueError(
                f"the mask of what was measured must be (cells, features) of {name!r}, {values.shape}, found {mask.shape}"
            )
        values, columns = _keep_measured(name, values, columns, mask)
    return pd.DataFrame(values, index=list(table.obs_names), columns=columns)


def _mask(name: str, table: Any, measured: Any) -> NDArray[np.bool_]:
    """Read which features were measured in which cells; a DataFrame's are found by name."""
    if isinstance(measured, str):
        if measured not in table.layers:
            raise InvalidValueError(
                f"what was measured of {name!r} must be a layer of {list(table.layers)}, found {measured!r}"
            )
        measured = table.layers[measured]
    if hasattr(measured, "reindex"):
        known = measured.reindex(index=list(table.obs_names), columns=list(table.var_names))
        if known.isna().to_numpy().any():
            raise InvalidValueError(f"what was measured of {name!r} must be told for each cell and feature, found gaps in it")
        measured = known
    return np.asarray(measured.toarray() if hasattr(measured, "toarray") else measured, dtype=np.bool_)


def _keep_measured(
    name: str, values: NDArray[np.float32], columns: list[str], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], list[str]]:
    """Leave out features that some cells were not measured for; a cell without any is one that lacks the modality."""
    having = mask.sum(axis=1) > 0
    everywhere = mask.sum(axis=0) == having.sum()
    lost = [column for column, known in zip(columns, everywhere, strict=True) if not known]
    if len(lost) == len(columns):
        raise InvalidValueError(
            f"some feature of {name!r} must be measured in each cell that has any, found none of {len(columns)}; leave out the "
            "cells of the batch with the other features"
        )
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(columns)} features of {name!r} were not measured in each cell that has others, and are left "
            f"out: {show_ids(lost)}",
            JoinWarning,
            stacklevel=4,
        )
    values[~having] = np.nan
    return values[:, everywhere], [column for column, known in zip(columns, everywhere, strict=True) if known]


def _values(name: str, table: Any, layer: str | None) -> tuple[NDArray[np.float32], list[str]]:
    if layer is None:
        return _dense(table.X), list(table.var_names)
    if layer.startswith("obsm:") and layer.removeprefix("obsm:") in table.obsm:
        values = _dense(table.obsm[layer.removeprefix("obsm:")])
        return values, [f"{layer.removeprefix('obsm:')} {place}" for place in range(values.shape[1])]
    if layer not in table.layers:
        known = [*table.layers, *(f"obsm:{key}" for key in table.obsm)]
        raise InvalidValueError(f"the layer of {name!r} must be one of {known}, found {layer!r}")
    return _dense(table.layers[layer]), list(table.var_names)


def _dense(values: Any) -> NDArray[np.float32]:
    """Copy a matrix, sparse or not, or a DataFrame."""
    if values is None:
        raise InvalidValueError("a modality must have values, found X None; name a layer of it: layers={modality: name}")
    return np.array(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float32)


def _column(name: str, whole: Any, tables: Mapping[str, Any]) -> Any:
    """Find a column of ``obs`` by cell, with its categories where it has such."""
    import pandas as pd

    frames = {} if whole is None else {"the whole": whole.obs}
    frames |= {repr(modality): table.obs for modality, table in tables.items()}
    having = {place: frame[name] for place, frame in frames.items() if name in frame.columns}
    if not having:
        known = sorted({str(column) for frame in frames.values() for column in frame.columns})
        raise InvalidValueError(f"the column must be one of obs, {known}, found {name!r}")
    found: dict[Any, Any] = {}
    for place, series in having.items():
        for cell, value in zip(series.index, list(series), strict=True):
            if is_absent(value):
                continue
            if found.setdefault(cell, value) != value:
                raise InvalidValueError(
                    f"a cell must have one {name!r}, found {found[cell]!r} and, in {place}, {value!r} of {cell!r}; correct "
                    "one, or leave the modality out"
                )
    first = next(iter(having.values())).dtype
    if not hasattr(first, "categories") or not set(found.values()) <= set(first.categories):
        return found
    return pd.Series(pd.Categorical(list(found.values()), categories=first.categories), index=list(found))

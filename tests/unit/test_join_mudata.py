"""Cells of a MuData, joined by name: what it stores of itself may be out of date."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from msam.data import from_mudata
from msam.errors import InvalidTypeError, InvalidValueError, JoinWarning

anndata = pytest.importorskip("anndata", reason="the extra mudata is not installed")
mudata = pytest.importorskip("mudata", reason="the extra mudata is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:::mudata", "ignore:::anndata")

CELLS = [f"c{number}" for number in range(6)]


def cells(names: list[str], features: list[str], **obs: Any) -> Any:
    """A table whose numbers tell cell and feature."""
    values = np.array([[10.0 * int(name[1:]) + place for place in range(len(features))] for name in names], dtype=np.float32)
    return anndata.AnnData(values, obs=pd.DataFrame(obs, index=names), var=pd.DataFrame(index=features))


def both() -> Any:
    """Two modalities that share four of six cells, in other orders."""
    rna = cells(["c3", "c0", "c1", "c2", "c4"], ["g0", "g1"])
    protein = cells(["c1", "c2", "c5", "c3", "c0"], ["p0"])
    data = mudata.MuData({"rna": rna, "protein": protein})
    data.obs["kind"] = [f"k{int(name[1:]) % 2}" for name in data.obs_names]
    data.obs["donor"] = [int(name[1:]) // 3 for name in data.obs_names]
    return data


def first_of(joined: Any, name: str) -> dict[str, float]:
    return {
        cell: float(row[0])
        for cell, row, there in zip(joined.ids, joined.inputs[name], joined.present[name], strict=True)
        if there
    }


def test_cells_meet_by_name():
    joined = from_mudata(both(), "kind", "donor")
    assert set(joined.ids) == set(CELLS)
    for name in ("rna", "protein"):
        assert all(value == 10 * int(cell[1:]) for cell, value in first_of(joined, name).items())
    assert joined.lacking("rna") == ("c5",)
    assert joined.lacking("protein") == ("c4",)
    assert [joined.classes[place] for place in joined.target] == [f"k{int(cell[1:]) % 2}" for cell in joined.ids]
    assert joined.groups.tolist() == [int(cell[1:]) // 3 for cell in joined.ids]
    assert joined.columns == {"rna": ("g0", "g1"), "protein": ("p0",)}


@pytest.mark.parametrize("change", ["filtered", "reordered", "shorter"])
def test_a_modality_that_was_changed_in_place_still_meets_the_right_cells(change: str):
    data = both()
    rna = data.mod["rna"]
    rows = {"filtered": [0, 1, 3, 4], "reordered": [4, 2, 0, 1, 3], "shorter": [2]}[change]
    rna._inplace_subset_obs(np.array(rows))  # as filters of these libraries do
    joined = from_mudata(data, "kind")
    assert set(first_of(joined, "rna")) == set(rna.obs_names)
    assert all(value == 10 * int(cell[1:]) for cell, value in first_of(joined, "rna").items())
    assert all(value == 10 * int(cell[1:]) for cell, value in first_of(joined, "protein").items())


def test_scaling_afterwards_leaves_the_data_alone():
    data = both()
    before = data.mod["rna"].X.copy()
    joined = from_mudata(data, "kind")
    joined.inputs["rna"] -= joined.inputs["rna"].mean(0)
    assert np.array_equal(data.mod["rna"].X, before)


def test_sparse_values_layers_and_embeddings():
    data = both()
    rna = data.mod["rna"]
    rna.layers["counts"] = sparse.csr_matrix(rna.X * 2)
    rna.obsm["X_pca"] = rna.X[:, :1] * 3
    rna.obsm["frame"] = pd.DataFrame(rna.X[:, :1] * 4, index=rna.obs_names)
    rna.X = sparse.csr_matrix(rna.X)
    assert first_of(from_mudata(data, "kind"), "rna")["c3"] == 30
    assert first_of(from_mudata(data, "kind", layers={"rna": "counts"}), "rna")["c3"] == 60
    joined = from_mudata(data, "kind", layers={"rna": "obsm:X_pca"}, modalities=("rna",))
    assert first_of(joined, "rna")["c3"] == 90
    assert joined.columns == {"rna": ("X_pca 0",)}
    assert first_of(from_mudata(data, "kind", layers={"rna": "obsm:frame"}), "rna")["c3"] == 120
    with pytest.raises(InvalidValueError, match=r"must be one of \['counts', 'obsm:X_pca', 'obsm:frame'\], found 'raw'"):
        from_mudata(data, "kind", layers={"rna": "raw"})


def test_what_an_outer_concatenation_did_not_measure_is_asked_for():
    one, other = cells(["c0", "c1"], ["shared", "first"]), cells(["c2", "c3"], ["shared", "second"])
    for part in (one, other):
        part.X = sparse.csr_matrix(part.X + 1)
    rna = anndata.concat([one, other], join="outer")
    rna = rna[:, ["shared", "first", "second"]].copy()
    assert rna.X.toarray()[0].tolist() == [1, 2, 0], "a zero that nobody measured"
    mask = np.array([[True, True, False]] * 2 + [[True, False, True]] * 2)
    label = {"kind": ["a", "b", "a", "b"]}
    data = {"rna": rna, "protein": cells(["c3", "c2", "c1", "c0"], ["p0"], **label)}
    assert from_mudata(data, "kind").inputs["rna"].shape == (4, 3)
    with pytest.warns(JoinWarning, match="2 of 3 features of 'rna' were not measured in each cell .*'first', 'second'"):
        joined = from_mudata(data, "kind", measured={"rna": mask})
    assert joined.columns["rna"] == ("shared",)
    rna.layers["seen"] = mask.copy()
    rna.layers["seen"][1] = False
    with pytest.warns(JoinWarning):
        assert from_mudata(data, "kind", measured={"rna": "seen"}).lacking("rna") == ("c1",)
    with pytest.raises(InvalidValueError, match=r"\(4, 3\), found \(2, 3\)"):
        from_mudata(data, "kind", measured={"rna": mask[:2]})
    by_name = pd.DataFrame(mask, index=list(rna.obs_names), columns=list(rna.var_names)).iloc[::-1, ::-1]
    with pytest.warns(JoinWarning, match="2 of 3 features"):
        assert from_mudata(data, "kind", measured={"rna": by_name}).columns["rna"] == ("shared",)
    for wrong in ("nothing", by_name.iloc[1:]):
        with pytest.raises(InvalidValueError, match="what was measured of 'rna' must be"):
            from_mudata(data, "kind", measured={"rna": wrong})
    mask[:, 0] = [True, True, False, False]
    with pytest.raises(InvalidValueError, match="must be measured in each cell that has any, found none of 3"):
        from_mudata(data, "kind", measured={"rna": mask})


def test_labels_of_modalities_must_agree():
    data = {"rna": cells(["c0", "c1"], ["g"], kind=["a", "b"]), "protein": cells(["c1", "c2"], ["p"], kind=["b", "a"])}
    joined = from_mudata(data, "kind")
    assert dict(zip(joined.ids, joined.target.tolist(), strict=True)) == {"c0": 0, "c1": 1, "c2": 0}
    data["protein"].obs["kind"] = ["a", "a"]
    with pytest.raises(InvalidValueError, match="a cell must have one 'kind', found 'b' and, in 'protein', 'a' of 'c1'"):
        from_mudata(data, "kind")


def test_labels_keep_their_type_and_order():
    kinds = pd.Categorical(["low", "high"], categories=["low", "high"])
    data = {"rna": cells(["c0", "c1"], ["g"], kind=kinds), "protein": cells(["c1", "c0"], ["p"])}
    assert from_mudata(data, "kind").classes == ("low", "high")
    numbered = {"rna": cells(["c0", "c1", "c2"], ["g"], kind=pd.array([1, pd.NA, 0], dtype="Int64"))}
    joined = from_mudata(numbered, "kind")
    assert (joined.ids, joined.target.dtype.kind, joined.target.tolist()) == (("c0", "c2"), "i", [1, 0])
    texts = {"rna": cells(["c0", "c1"], ["g"], kind=pd.array(["a", pd.NA], dtype="string"))}
    assert from_mudata(texts, "kind", modalities="rna").ids == ("c0",)


def test_wrong_arguments():
    with pytest.raises(InvalidTypeError, match="must be a MuData, or a mapping"):
        from_mudata(np.ones(3))
    with pytest.raises(InvalidValueError, match=r"modalities must name modalities of \['rna', 'protein'\], found \['atac'\]"):
        from_mudata(both(), modalities=("atac",))
    with pytest.raises(InvalidValueError, match=r"one of obs, \[.*'kind'.*\], found 'type'"):
        from_mudata(both(), "type")
    twice = {"rna": cells(["c0", "c0"], ["g"], kind=["a", "b"])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidValueError, match="more than one row of 'c0'"):
            from_mudata(twice)

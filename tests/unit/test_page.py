"""The page's structure: its order, what stands for figures that are not seen, and data that can be taken away."""

import base64
import csv
import hashlib
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pytest

from msam.compare import RECIPES
from msam.compare.flat import csv_text, flatten_record, records_csv
from msam.report.axes import Axis, fit, text_width
from msam.report.drawing import Style
from msam.report.page import render_page
from msam.report.plot import Chart
from msam.report.units import units_of
from reported import BASE, CALIBRATED, FULL, make_findings, shifted

SECTIONS = [
    "verdict",
    "caveats",
    "results",
    "branches",
    "absence",
    "training",
    "shares",
    "trials",
    "files",
    "origin",
    "statistics",
]
VOID = {"meta", "link", "br"}


class Tree(HTMLParser):
    """Every element with its attributes, its text, and the elements around it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []
        self.feed(page)
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {"tag": tag, "attributes": dict(attrs), "text": "", "around": list(self._open)}
        self.elements.append(found)
        if tag not in VOID:
            self._open.append(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "attributes": dict(attrs), "text": "", "around": list(self._open)})

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for found in self._open:
            found["text"] += data

    def find(self, tag: str, **attributes: str) -> Iterator[dict[str, Any]]:
        for found in self.elements:
            if found["tag"] == tag and all(found["attributes"].get(name) == value for name, value in attributes.items()):
                yield found


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(FULL)


@pytest.fixture(scope="module")
def tree(page: str) -> Tree:
    return Tree(page)


def held(link: str) -> list[dict[str, str]]:
    head, _, content = link.partition(",")
    assert head == "data:text/csv;charset=utf-8"
    return list(csv.DictReader(io.StringIO(unquote(content))))


def links_of(tree: Tree) -> dict[str, list[dict[str, str]]]:
    found = [link["attributes"] for link in tree.find("a") if "download" in link["attributes"]]
    return {link["download"]: held(link["href"]) for link in found}


# -- order ---------------------------------------------------------------------------------------------------------------


def test_sections_stand_in_order_and_the_contents_lead_to_each(tree: Tree) -> None:
    ids = [section["attributes"].get("id") for section in tree.find("section")]
    assert ids == [*SECTIONS, "sources"]
    in_contents = [link for link in tree.find("a") if any(each["tag"] == "nav" for each in link["around"])]
    links = [link["attributes"]["href"].removeprefix("#") for link in in_contents]
    assert links == ids
    titles = dict(zip(links, [link["text"] for link in in_contents], strict=True))
    for section in tree.find("section"):
        heads = [each["text"] for each in tree.find("h2") if each["around"][-1] is section]
        key = section["attributes"]["id"]
        assert heads == ([] if key == "verdict" else [heads[0]])
        assert key in {"verdict", "sources"} or heads == [titles[key]]


def test_what_calibrated_runs_add_has_sections_of_its_own() -> None:
    tree = Tree(render_page(CALIBRATED))
    ids = [section["attributes"]["id"] for section in tree.find("section")]
    assert ids.index("absence") < ids.index("trust") < ids.index("training")
    figures = {figure["attributes"]["id"] for figure in tree.find("figure")}
    assert {"calibration", "learning", "missing"} <= figures
    [label] = [svg["attributes"]["aria-label"] for svg in tree.find("svg", id="calibration-ece-panel")]
    assert label.startswith("Calibration error, % on the test split: SGD 12.5;")
    assert list(tree.find("svg", id="learning-train_loss-panel"))
    assert "abacus, Beads, 10 cores" in render_page(CALIBRATED) and "12 MiB" in render_page(CALIBRATED)


def test_the_first_screen_holds_the_verdict_and_the_picture_that_proves_it(tree: Tree) -> None:
    [first] = tree.find("div", **{"class": "first"})
    inside = [found for found in tree.elements if first in found["around"]]
    classes = [found["attributes"].get("class") for found in inside]
    assert classes.index("headline") < classes.index("panel")
    assert [found["attributes"]["id"] for found in inside if found["tag"] == "figure"] == ["forest"]
    assert not [found for found in tree.elements if found["tag"] in {"nav", "table"} and first in found["around"]]


def test_several_comparisons_show_all_verdicts_and_pictures_first() -> None:
    tree = Tree(render_page([FULL, CALIBRATED]))
    order = [found["attributes"].get("id") or found["tag"] for found in tree.elements if found["tag"] in {"figure", "nav"}]
    assert order[:3] == ["forest", "part2-forest", "nav"]
    targets = [link["attributes"]["href"] for link in tree.find("a") if link["attributes"]["href"].startswith("#")]
    ids = {found["attributes"]["id"] for found in tree.elements if "id" in found["attributes"]}
    assert "#part2-trust" in targets and {target[1:] for target in targets} <= ids


def test_a_diagnosis_says_first_who_is_starved_and_shows_it() -> None:
    tree = Tree(render_page(make_findings({"base": BASE}, joint=0.5), diagnosis=True))
    [headline] = tree.find("p", **{"class": "headline"})
    assert headline["text"].startswith(
        "image is starved: a linear probe of its branch reads 50.0\N{NO-BREAK SPACE}% after joint"
    )
    assert next(figure["attributes"]["id"] for figure in tree.find("figure")) == "starvation"
    assert len(list(tree.find("figure", id="starvation"))) == 1
    fed = Tree(render_page(make_findings({"base": BASE}, joint=0.6), diagnosis=True))
    [headline] = fed.find("p", **{"class": "headline"})
    assert headline["text"].startswith("No branch ")
    for findings in (make_findings({"base": BASE}, names=("image",)), make_findings({"base": BASE})):
        assert list(Tree(render_page(findings, diagnosis=True)).find("p", **{"class": "headline"}))


def test_many_methods_of_long_names_lose_no_number() -> None:
    names = [name for name in RECIPES if name != "base"][:28]
    found = make_findings({"base": BASE, **{name: shifted(0.004 * place) for place, name in enumerate(names)}})
    tree = Tree(render_page(found))
    [forest] = tree.find("svg", id="forest-panel")
    heads = [text["text"] for text in tree.find("text") if forest in text["around"]]
    for method in found.methods[1:]:
        if not method.is_control:
            gap = units_of(found).signed(method.to_base.mean)
            assert [head for head in heads if re.search(rf": {re.escape(gap)} \[.*\]$", head)], method.label
    [figure] = tree.find("figure", id="compute")
    [legend] = [each for each in tree.find("ul", **{"class": "legend"}) if figure in each["around"]]
    assert all(method.label in legend["text"] for method in found.methods), "names beside points would leave the figure"


# -- for those who do not see, and without scripts -----------------------------------------------------------------------


def test_every_figure_says_what_is_seen_in_numbers(tree: Tree) -> None:
    panels = [svg for svg in tree.find("svg") if svg["attributes"].get("role") == "img"]
    assert len(panels) > 10
    for svg in panels:
        assert len(re.findall(r"\d+", svg["attributes"]["aria-label"])) >= 2, svg["attributes"]["aria-label"]
        assert any(each["tag"] == "figure" for each in svg["around"])
    others = [svg for svg in tree.find("svg") if svg not in panels]
    assert all(svg["attributes"]["aria-hidden"] == "true" for svg in others), "signs of the legend stand beside their names"
    for figure in tree.find("figure"):
        captions = [each["text"].strip() for each in tree.find("figcaption") if figure in each["around"]]
        assert len(captions) == 1 and captions[0]


def test_tables_scroll_in_a_box_of_their_own_and_name_rows_and_columns(tree: Tree) -> None:
    tables = list(tree.find("table"))
    assert len(tables) >= 4
    for table in tables:
        box = table["around"][-1]
        assert (
            box["attributes"]["class"] == "scroll" and box["attributes"]["tabindex"] == "0" and box["attributes"]["aria-label"]
        )
        heads = [head for head in tree.find("th") if table in head["around"]]
        for head in heads:
            in_head = any(each["tag"] == "thead" for each in head["around"])
            assert head["attributes"]["scope"] == ("col" if in_head else "row")
            assert head["text"].strip(), "a row of a section repeats the section's name"
        rows = [row for row in tree.find("tr") if table in row["around"]]
        assert len([head for head in heads if head["attributes"]["scope"] == "row"]) == len(rows) - 1


def test_headings_do_not_jump(tree: Tree) -> None:
    levels = [int(found["tag"][1]) for found in tree.elements if re.fullmatch(r"h\d", found["tag"])]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_only_script_is_the_one_that_the_policy_names(tree: Tree) -> None:
    [script] = tree.find("script")
    assert not script["attributes"]
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    [policy] = tree.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"script-src 'sha256-{digest}';" in policy["attributes"]["content"]
    assert "default-src 'none'" in policy["attributes"]["content"]
    assert not [name for found in tree.elements for name in found["attributes"] if name.startswith("on")]
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML|localStorage|https?:", script["text"])


def test_nothing_is_loaded_from_outside(tree: Tree) -> None:
    for found in tree.elements:
        attributes = found["attributes"]
        assert "src" not in attributes and "srcset" not in attributes
        if found["tag"] != "a" and "href" in attributes:
            assert attributes["href"].startswith("data:")


# -- data ----------------------------------------------------------------------------------------------------------------


def test_records_on_the_page_are_the_reported_runs(tree: Tree) -> None:
    rows = links_of(tree)["records.csv"]
    runs = [run for method in FULL.methods for run in method.records]
    runs += [run for found in FULL.runs_alone.values() for run in found]
    assert len(rows) == len(runs)
    for row, run in zip(rows, runs, strict=True):
        assert (row["method"], int(row["seed"])) == (run["method"], run["seed"])
        assert float(row["test.metric"]) == run["test"]["metric"], "not rounded"
        assert float(row["test.without.image"]) == run["test"]["without"]["image"]
        assert row["strength"] == ("" if run["strength"] is None else str(run["strength"]))


def test_every_figure_hands_its_numbers_out(tree: Tree) -> None:
    links = links_of(tree)
    assert set(links) == {f"{figure['attributes']['id']}.csv" for figure in tree.find("figure")} | {"records.csv"}
    assert all(links.values())
    differences = [row for row in links["forest.csv"] if row["method"] == "SAM"]
    sam = FULL.method("sam")
    assert sam is not None and sam.to_base is not None
    expected = [
        run["test"]["metric"] - base["test"]["metric"] for run, base in zip(sam.records, FULL.base.records, strict=True)
    ]
    assert [float(row["difference"]) for row in differences[:-1]] == expected
    assert [row["seed"] for row in differences] == ["0", "1", "2", "3", "4", "mean"]
    assert float(differences[-1]["low"]) == sam.to_base.low
    chosen = [row for row in links["search.csv"] if row["chosen"] == "yes" and row["method"] == "SAM"]
    assert [row["strength"] for row in chosen] == ["0.1"]
    fallen = {row["strength"]: row["beyond_the_cliff"] for row in links["search.csv"] if row["method"] == "SAM"}
    assert fallen == {"0.01": "yes", "0.1": "no", "1.0": "yes"}, "both lose 0.2 of about 0.73"


def test_records_as_a_table_leave_nothing_but_lists_out() -> None:
    run = FULL.base.records[0]
    row = flatten_record(run)
    assert row["test.contributions.image"] == run["test"]["contributions"]["image"]
    assert row["probes.sound"] == run["probes"]["sound"] and row["measured.training_seconds"] == 0.5
    assert not any(isinstance(value, dict | list | tuple) for value in row.values())
    tuned = {**run, "test": None, "strength": 0.5}
    first, second = csv.DictReader(io.StringIO(records_csv([run, tuned])))
    assert first["test.metric"] and second["test.metric"] == "" and second["strength"] == "0.5"


def test_cells_with_commas_quotes_and_no_number() -> None:
    rows = [["a", "b"], ['x, "y"', float("nan")], [None, True], ["\u00e9", 0.1 + 0.2], ["-", -1.5]]
    found = [["a", "b"], ['x, "y"', ""], ["", "true"], ["\u00e9", repr(0.1 + 0.2)], ["'-", "-1.5"]]
    assert list(csv.reader(io.StringIO(csv_text(rows)))) == found


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x", "a\x1b[31m\n\u202e\ud800"])
def test_texts_in_a_table_are_no_formulas_and_hide_nothing(name: str) -> None:
    [[cell]] = csv.reader(io.StringIO(csv_text([[name]])))
    assert cell[0] not in "=+-@" and cell.isprintable()
    cell.encode("utf-8")


# -- plots ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axis",
    [
        Axis(-3.2, 11.0),
        Axis(0.001, 0.0013),
        Axis(99.98, 100.02),
        Axis(0.02, 3.0, True),
        Axis(0.9, 1.2, True),
        Axis(1e-8, 1e6, True),
    ],
)
def test_ticks_are_few_ascending_and_inside(axis: Axis) -> None:
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8 and ticks == sorted(set(ticks))
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert [axis.share(axis.low), axis.share(axis.high)] == pytest.approx([0, 1])


def test_an_axis_around_nothing_or_one_number_has_a_length() -> None:
    for values in ([], [float("nan")], [0.0], [5.0, 5.0]):
        axis = Axis.around(values)
        assert axis.low < axis.high and axis.ticks()


def test_lines_are_broken_where_there_is_no_number() -> None:
    chart = Chart("c", (100, 100), Axis(0, 3), Axis(0, 1))
    chart.curve([0, 1, 2, 3], [0.1, 0.2, float("nan"), 0.4], Style("red", "o"))
    svg = chart.svg("a <line> & 1 gap")
    [path] = re.findall(r' d="([^"]*)"', svg)
    assert path.count("M") == 2 and "nan" not in svg
    assert 'aria-label="a &lt;line&gt; &amp; 1 gap"' in svg


def test_texts_are_cut_with_a_sign_that_they_were() -> None:
    long = "a modality's name that goes on and on"
    assert fit(long, 1000) == long
    assert fit(long, 90).endswith("…") and text_width(fit(long, 90)) <= 90
    assert text_width("音声") > text_width("ab")

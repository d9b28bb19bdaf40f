"""The report: the verdict's words, the tables' numbers, and a page that stands alone."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from hand_made import completed
from msam.compare import RECIPES, Findings, find_out
from msam.compare.trials import Setting
from msam.report import print_report, state_verdict, write_page
from msam.report.drawing import INK, METHOD_STYLES, MODALITY_STYLES, method_style
from msam.report.page import render_page
from msam.report.printing import print_reports, render_table
from msam.report.side_tables import calibration_content, control_content
from msam.report.tables import branches_content, results_content
from reported import BASE, EPOCHS, FULL, TIE, make_findings, shifted


def test_a_tie_is_called_a_tie_and_the_cheapest_is_kept() -> None:
    verdict = state_verdict(make_findings(TIE))
    assert verdict.headline.startswith(
        "No method can be told apart from SGD on this data: the largest paired difference is that"
    )
    assert "of Modality-Aware SAM, +2.0 points (95 % interval -" in verdict.headline
    assert "corrected for 3 comparisons); one of " in verdict.headline
    assert verdict.headline.endswith(
        " points would have been told in four of five cases. SGD with twice the passes is equivalent, within 1.0 points, to it."
    )
    assert verdict.details[0].startswith("Modality-Aware SAM cannot be told apart from SGD (+2.0 points, -")
    assert "SGD with twice the passes (" in verdict.details[0] and "or SAM at the radius chosen for it (" in verdict.details[0]
    assert verdict.advice.startswith("Keep SGD: it is the cheapest")


def test_a_win_names_the_winner_its_radius_and_its_price() -> None:
    scores = {**TIE, "modality_aware_sam": shifted(0.1, 0.02)}
    verdict = state_verdict(make_findings(scores))
    assert verdict.headline.startswith("Modality-Aware SAM beats SGD on this data: +10.0 points (95 % interval +")
    assert "Use Modality-Aware SAM (rho = 0.1); it costs 2.0 x the gradient evaluations" in verdict.advice
    assert "Keep SGD" not in verdict.advice
    assert "SAM at the radius chosen for it" in verdict.details[0] and " beats SGD (" in verdict.details[0]


def test_a_headline_says_when_others_win_and_modality_aware_sam_does_not() -> None:
    verdict = state_verdict(make_findings({**TIE, "sam": shifted(0.1, 0.02)}))
    assert verdict.headline.startswith("SAM beats SGD on this data")
    assert verdict.headline.endswith("; Modality-Aware SAM cannot be told apart from SGD.")
    assert "Use SAM (rho = 0.1)" in verdict.advice
    several = state_verdict(make_findings({**TIE, "sam": shifted(0.1, 0.02), "monge_sam": shifted(0.101, -0.02)}))
    assert several.headline.startswith(
        "2 of 4 methods beat SGD on this data: the largest paired difference is that of Monge SAM"
    )
    assert "It cannot be told apart from SAM." in several.advice


def test_a_loss_is_called_a_loss() -> None:
    verdict = state_verdict(make_findings({**TIE, "modality_aware_sam": shifted(-0.1, 0.02)}))
    assert verdict.headline.startswith(
        "No method beats SGD on this data, and Modality-Aware SAM is worse: the paired difference is"
    )
    assert "-10.0 points" in verdict.headline
    assert verdict.details[0].startswith("Modality-Aware SAM is worse than SGD (-10.0 points")
    only = state_verdict(make_findings({"base": BASE, "sam": shifted(-0.1, 0.02)}))
    assert only.headline.startswith("SAM is worse than SGD on this data: -10.0 points (95 % interval -")
    assert "corrected" not in only.headline


def test_more_passes_of_the_base_are_preferred_to_a_method_that_does_no_better() -> None:
    scores = {"base": BASE, "base_2x": shifted(0.1, 0.02), "sam": shifted(0.1, 0.03)}
    assert state_verdict(make_findings(scores)).advice.startswith("Train SGD longer: twice the passes are enough")
    noisy = {"base": BASE, "base_2x": [score + 0.1 * (seed % 2) for seed, score in enumerate(BASE)], "sam": shifted(0.1, 0.02)}
    assert "But it cannot be told apart from SGD with twice the passes" in state_verdict(make_findings(noisy)).advice


def test_one_seed_gives_means_and_says_that_no_interval_exists() -> None:
    findings = make_findings({name: values[:1] for name, values in TIE.items()}, joint=0.5)
    verdict = state_verdict(findings)
    assert verdict.headline.startswith(
        "One seed cannot tell methods apart: the largest paired difference is that of SAM, +2.0 points"
    )
    assert verdict.caveats[0].startswith("One seed: no interval exists")
    text = " ".join([verdict.headline, *verdict.details, verdict.advice, *verdict.caveats, print_at(findings, 100)])
    assert "nan" not in text and "beats" not in text
    assert "Run more seeds" in verdict.advice
    assert "nan" not in render_page(findings).lower()


def test_the_base_alone_is_reported_without_a_comparison() -> None:
    verdict = state_verdict(make_findings({"base": BASE}))
    assert verdict.headline.startswith("SGD alone was run: accuracy 72.0 %")
    assert verdict.advice == "Compare SGD with at least one method before choosing."


def test_a_starved_branch_is_named_with_its_loss() -> None:
    details = " ".join(state_verdict(make_findings(TIE, joint=0.5)).details)
    assert "The branch of image is starved in joint training: a linear probe reads 50.0 % from it, 10.0 points" in details
    fed = " ".join(state_verdict(make_findings(TIE, joint=0.6)).details)
    assert "is starved" not in fed and "branches of image and sound are not measurably starved" in fed


def test_many_modalities_do_not_make_a_long_verdict() -> None:
    verdict = state_verdict(make_findings(TIE, names=("a", "b", "c", "d"), joint=0.5, select_by="one-missing"))
    assert sum("starved in joint training" in detail for detail in verdict.details) == 1
    assert any("a (10.0 points, 9." in detail and "and d (10.0 points" in detail for detail in verdict.details)
    assert sum(" missing, " in detail for detail in verdict.details) == 1


def test_advice_for_a_starved_branch_follows_from_its_accuracy_alone() -> None:
    settings = {"joint": 0.5, "select_by": "one-missing"}
    none = state_verdict(make_findings({"base": BASE, "sam": BASE}, **settings)).advice
    assert "No method that was compared measurably helps image when it stands alone." in none
    helped = make_findings({"base": BASE, "sam": BASE}, sam={"alone": {"image": 0.65, "sound": 0.4}}, **settings)
    assert "If image must also work alone, SAM (rho = 0.1) has the best accuracy there: 65.0 %" in state_verdict(helped).advice
    assert "With sound missing, accuracy is highest under SAM: 40.0 %" not in " ".join(state_verdict(helped).details)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"best": 1.0}, "SAM (rho = 1): the largest rho that was tried"),
        ({"best": 0.01}, "SAM (rho = 0.01): the smallest rho that was tried"),
        ({"rho": [0.1]}, "The radius was fixed at rho = 0.1, not tuned"),
        ({"base": {"epoch": EPOCHS}}, "Most runs of SGD were best at their last epoch"),
        ({}, "SGD with twice the passes gives the same results as SGD: validation chose epoch 3 on average"),
        ({}, "Few seeds (5): the intervals of the differences reach"),
        ({}, "with 500 rows, the accuracy of one run has a standard error of 2.0 points"),
        ({}, "Test splits of two seeds share 25 % of their rows"),
        ({}, "200 training rows and 20 % wrong training labels"),
        ({}, "Strengths were chosen by validation"),
        ({}, "(learning rate 0.05) were the same for all, and not tuned"),
    ],
)
def test_caveats(arguments: dict[str, Any], told: str) -> None:
    assert any(told in caveat for caveat in state_verdict(make_findings(TIE, **arguments)).caveats)


@pytest.mark.parametrize(
    "method, told",
    [("monge_sam", "Monge SAM was SAM in all but"), ("modality_aware_sam_monge", "was Modality-Aware SAM in all but name")],
)
def test_monge_sam_that_was_sam_is_called_so(method: str, told: str) -> None:
    scores = {"base": BASE, method: shifted(0.01)}
    same = state_verdict(make_findings(scores, **{method: {"shrinkage": 0.99}})).caveats
    other = state_verdict(make_findings(scores, **{method: {"shrinkage": 0.8}})).caveats
    assert any(told in caveat and "0.990" in caveat for caveat in same)
    assert not any("in all but name" in caveat for caveat in other)


def test_caveats_stay_silent_where_they_do_not_hold() -> None:
    caveats = " ".join(state_verdict(make_findings({**TIE, "base_2x": shifted(0.001)})).caveats)
    for absent in ("gives the same results", "that was tried", "last epoch", "fixed", "One seed"):
        assert absent not in caveats


def print_at(findings: Findings, width: int, **settings: Any) -> str:
    out = io.StringIO()
    print_report(findings, Console(file=out, width=width, **settings), None)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_fit_and_keep_every_number(width: int) -> None:
    scores = {**TIE, "joint_unimodal": shifted(0.03), "modality_dropout": shifted(-0.11), "monge_sam": shifted(0.015)}
    findings = make_findings(scores, names=("image", "sound", "text"), joint=0.5)
    printed = print_at(findings, width)
    assert max(len(line) for line in printed.splitlines()) <= width
    assert "…" not in printed and "..." not in printed
    for content in (results_content(findings, with_costs=True), branches_content(findings)):
        cells = [part for row in content.rows for cell in row[1:] for part in cell.split("\n")]
        for part in cells:
            if re.search(r"\d", part):
                assert part in printed, part
    for name in ("Modality-Aware", "probability =", "unimodal"):
        assert name in printed


def test_the_table_holds_strength_interval_difference_and_cost() -> None:
    row = next(row for row in results_content(make_findings(TIE), with_costs=True).rows if row[0].startswith("Modality-Aware"))
    assert row[0] == "Modality-Aware SAM\nrho = 0.1"
    assert re.fullmatch(r"74\.0 ± \d+\.\d", row[1])
    assert re.fullmatch(r"\+2\.0\n\[-\d+\.\d, \+\d+\.\d\]\ninconclusive\ntold from \d\.\d", row[2])
    assert 0 < float(row[3]) <= 1
    assert row[5:] == ("2.0x", "1.0x")
    assert render_table(make_findings(TIE)).row_count == 4


EQUAL = {"base": BASE, "sam": shifted(0.003, 0.002), "asam": shifted(-0.004, 0.002)}


def test_what_lies_within_the_margin_is_equivalent_also_where_zero_does_not_lie_in_it() -> None:
    found = make_findings(EQUAL)
    assert found.margin == 0.01
    headline = state_verdict(found).headline
    assert headline.startswith("All 2 methods are equivalent, within 1.0 points, to SGD on this data: the largest paired")
    assert state_verdict(found).advice == "Keep SGD: it is the cheapest, and nothing that was compared beats it."
    rows = {row[0].split("\n")[0]: row for row in results_content(found).rows}
    assert "\nequivalent\n" in rows["SAM"][2] and "\nequivalent\n" in rows["ASAM"][2]
    assert found.method("asam").to_base.high < 0, "or this test shows nothing"
    narrow = make_findings(EQUAL, equivalence_margin=0.0005)
    assert state_verdict(narrow).headline.startswith("SAM beats SGD on this data: +0.3 points")
    other = make_findings({name: [100 * value for value in values] for name, values in EQUAL.items()}, metric="gain")
    assert other.margin is None and "equivalent" not in state_verdict(other).headline


def test_what_more_seeds_cannot_tell_is_said_where_something_is_open() -> None:
    said = "More seeds alone would not tell differences below"
    assert any(caveat.startswith(said) for caveat in state_verdict(make_findings(TIE)).caveats)
    assert not any(caveat.startswith(said) for caveat in state_verdict(make_findings(EQUAL)).caveats)


def test_a_modality_dominates_only_if_it_is_measurably_ahead() -> None:
    assert any(detail.startswith("image dominates: ") for detail in state_verdict(make_findings(TIE)).details)
    unsure = make_findings(TIE)
    for place, record in enumerate(unsure.base.records):
        share = 0.7 if place % 2 else 0.4
        record["test"]["contributions"].update(image=share, sound=1 - share)
    details = state_verdict(unsure).details
    assert any(detail.startswith("No modality measurably dominates: image contributes most") for detail in details)


def test_several_comparisons_make_one_report_whose_first_sentences_are_their_verdicts() -> None:
    one, two = make_findings(TIE), make_findings({**TIE, "sam": shifted(0.1, 0.02)}, joint=0.5)
    out = io.StringIO()
    print_reports([one, two], Console(file=out, width=1000), Path("report.html"))
    first, second, *_ = (line for line in out.getvalue().splitlines() if line)
    assert first.startswith("<toy> & task (selected by accuracy): No method can be told apart from SGD")
    assert second.startswith("<toy> & task (selected by accuracy): SAM beats SGD on this data")
    assert out.getvalue().rstrip().endswith("Page: report.html")
    page = read(render_page([one, two]))
    assert len(page.ids) == len(set(page.ids)), "figures of both have ids of their own"
    assert {"forest", "part2-forest", "part2-starvation"} <= set(page.ids)
    assert render_page([one]) == render_page(one)


def test_further_test_splits_stand_side_by_side() -> None:
    assert control_content(make_findings(TIE)) is None
    found = make_findings(TIE, joint=0.5)
    metrics = {"base": 0.9, "base_2x": 0.95, "sam": 0.85, "modality_aware_sam": 0.9}
    records = [
        completed(
            {**run, "test": {**run["test"], "others": {"easy": {"metric": metrics.get(run["method"], 0.5), "loss": 1.0}}}}
        )
        for runs in [*(method.records for method in found.methods), *found.runs_alone.values()]
        for run in runs
    ]
    content = control_content(find_out({**found.comparison, "rho": [0.1]}, records))
    assert content.columns == ("Method", "Test, %", "Easy", "q*")
    rows = {row[0]: row[1:] for row in content.rows}
    assert rows["SGD"][1:] == ("90.0 ± 0.0", "")
    assert rows["SAM"][1:] == ("85.0 ± 0.0", "83 %"), "it loses 5 points there and gains 1 here"
    assert rows["Modality-Aware SAM"][2] == "0 %"
    assert rows["SGD, twice the passes"][2] == "\N{EN DASH}", "it gains nothing on the test split"
    assert rows["SGD, image only"][1] == "50.0 ± 0.0"


def test_calibration_stands_beside_accuracy_where_it_is_known() -> None:
    found = make_findings(TIE)
    assert calibration_content(found) is None
    known = {"nll": 0.5, "brier": 0.25, "ece": 0.125}
    records = [
        completed({**run, "test": {**run["test"], "calibration": {**known, "nll": None if run["method"] == "sam" else 0.5}}})
        for method in found.methods
        for run in method.records
    ]
    found = find_out({**found.comparison, "rho": [0.1]}, records)
    rows = {row[0]: row[1:] for row in calibration_content(found).rows}
    assert rows["SGD"] == ("0.500 ± 0.000", "0.250 ± 0.000", "12.5 ± 0.0")
    assert rows["SAM"][0] == "\N{EN DASH}"
    assert "Calibration" in print_at(found, 80) and "Calibration error" in render_page(found)


def test_a_control_recommends_no_method_and_says_whether_the_comparison_could_tell() -> None:
    won = make_findings({**TIE, "sam": shifted(0.1, 0.02)}, joint=0.5)

    def as_control(gain: float) -> str:
        records = [run for method in won.methods for run in method.records]
        for run in (run for runs in won.runs_alone.values() for run in runs):
            base = won.base.records[run["seed"]]["test"]["metric"]
            noise = 0.01 * (-1) ** run["seed"]
            records.append(completed({**run, "test": {**run["test"], "metric": base + gain + noise}}))
        task = {**won.comparison["task"], "control": True}
        return state_verdict(find_out({**won.comparison, "task": task, "rho": [0.1]}, records)).advice

    assert state_verdict(won).advice.startswith("Use SAM")
    told = as_control(0.2)
    assert told.startswith("Choose no method by this control. It shows that such a comparison can tell: SGD with image only")
    assert "92.2 %, with all modalities 72.0 %" in told
    assert as_control(0.0).startswith("Do not trust ties of such comparisons")


def test_two_modalities_have_no_column_twice() -> None:
    assert not any("Without" in column for column in branches_content(make_findings(TIE)).columns)
    three = branches_content(make_findings(TIE, names=("a", "b", "c")))
    assert any("Without" in column for column in three.columns)


def test_markup_in_names_is_text() -> None:
    findings = make_findings({"base": BASE}, names=("[red]x", "<b>$y$"))
    assert "[red]x" in print_at(findings, 100)
    page = render_page(findings)
    assert "<b>" not in page and "&lt;b&gt;$y$" in page and "&lt;toy&gt; &amp; task" in page


def test_the_report_names_the_page() -> None:
    out = io.StringIO()
    print_report(make_findings({"base": BASE}), Console(file=out, width=80), Path("some") / "report.html")
    assert str(Path("some") / "report.html") in out.getvalue()


class Reader(HTMLParser):
    """Collects what a browser would load, and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id" and value:
                self.ids.append(value)
            if (key in {"src", "srcset", "data", "xlink:href"} or (key == "href" and tag != "a")) and value:
                self.loaded.append(value)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(FULL)


def test_the_page_loads_nothing(page: str) -> None:
    reader = read(page)
    assert reader.loaded and all(target.startswith(("#", "data:")) for target in reader.loaded)
    assert reader.tags.count("script") == 1 and "<script>" in page, "one script, in the page itself"
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_the_page_is_deterministic_and_its_ids_are_unique(page: str) -> None:
    assert page == render_page(FULL)
    ids = read(page).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_the_page_reads_in_order(page: str) -> None:
    marks = [
        "msam: sharpness-aware minimization for multimodal learning",
        state_verdict(FULL).headline[:40],
        "Advice.",
        'id="forest"',
        '<nav aria-labelledby="contents">',
        "<h2>Caveats</h2>",
        "<h2>Results</h2>",
        'id="compute"',
        "<h3>Cost</h3>",
        "<h2>Branches</h2>",
        'id="starvation"',
        "Modality by modality</h3>",
        "<h2>Missing modalities</h2>",
        'id="missing"',
        "<h2>Curves</h2>",
        'id="learning"',
        "<h2>Contributions</h2>",
        'id="contributions"',
        'id="alone"',
        "<h2>Trials</h2>",
        'id="search"',
        "<h2>Data</h2>",
        "msam compare --out &#39;&lt;folder&gt;&#39;",
        "<h3>Machine and versions</h3>",
        "Nadeau and Bengio",
        "arXiv 2510.24919",
    ]
    places = [page.find(mark) for mark in marks]
    assert -1 not in places and places == sorted(places)


def test_figures_are_named_take_the_text_colour_and_keep_text_as_text(page: str) -> None:
    figures = re.findall(r"<svg [^>]*role=.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 1 + 2 + 1 + 1 + 1 + 2 + 2 + 3, (
        "differences, cost, starvation, missing, curves, shares, alone, trials"
    )
    for figure in figures:
        tree = ElementTree.fromstring(figure)
        assert tree.attrib["role"] == "img" and re.search(r"\d", tree.attrib["aria-label"])
        assert tree.attrib["fill"] == "currentColor" and "#000000" not in figure
        assert tree.findall("text") and tree.findall(".//title"), "words, and points that say their numbers"
    forest = next(figure for figure in figures if 'id="forest-panel"' in figure)
    assert "Modality-Aware SAM: +2.0 [" in forest
    assert "Modality-Aware SAM +2.0 points, -" in forest and "The band of equivalence is ± 1.0 points" in forest
    assert len(re.findall(r"<title>SAM, seed \d: [+-]\d", forest)) == len(BASE), "one dot a seed"


def test_every_recipe_has_a_colour_and_marker_of_its_own() -> None:
    styles = {(style.color, style.marker) for style in map(method_style, RECIPES)}
    assert len(styles) == len(RECIPES)
    assert method_style("somebody's own") == method_style("somebody's own")


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_series_are_told_apart_on_both_backgrounds_and_without_colour() -> None:
    for styles in (list(METHOD_STYLES.values()), list(MODALITY_STYLES)):
        assert len({style.marker for style in styles}) == len(styles)
        for style in styles:
            if style.color != INK:
                assert 1.05 / (luminance(style.color) + 0.05) >= 3, style
                assert (luminance(style.color) + 0.05) / (luminance("#15181c") + 0.05) >= 3, style


@pytest.mark.parametrize(
    ("arguments", "present", "absent"),
    [
        ({"scores": {"base": BASE}}, ["contributions", "alone"], ["forest", "starvation", "compute", "search"]),
        ({"scores": TIE}, ["forest", "search"], ["starvation"]),
        ({"scores": TIE, "names": ("image",)}, ["forest", "compute"], ["contributions", "alone", "starvation"]),
        ({"scores": TIE, "names": ("a", "b", "c"), "joint": 0.5}, ["starvation", "contributions"], []),
        ({"scores": TIE, "rho": [0.1]}, ["forest"], ["search"]),
        ({"scores": {"base": BASE, "modality_aware_sam": shifted(0.02)}}, ["forest", "alone"], []),
        ({"scores": {name: values[:1] for name, values in TIE.items()}}, ["forest"], ["starvation"]),
    ],
)
def test_degenerate_comparisons_render(arguments: dict[str, Any], present: list[str], absent: list[str]) -> None:
    findings = make_findings(**arguments)
    ids = read(render_page(findings)).ids
    assert print_at(findings, 80)
    assert set(present) <= set(ids) and not set(absent) & set(ids)


def test_unknown_contributions_and_a_radius_of_zero_render() -> None:
    findings = make_findings(TIE, names=("\u97f3\u58f0", "b", "c", "d", "e", "f"), rho=[0.01, 0.1], best=0.01, joint=0.5)
    for method in findings.methods:
        method.tuning.trials.update({Setting(0.0): 0.5} if method.strength_name is not None else {})
        method.contributions.update(dict.fromkeys(method.contributions, float("nan")))
        for curve in method.contribution_curve.values():
            curve[1] = float("nan")
    rendered = render_page(findings)
    assert "\u97f3\u58f0" in rendered and "nan" not in re.sub(r"<[^>]*>", "", rendered)
    assert not any("contributes" in detail or "dominates" in detail for detail in state_verdict(findings).details)


def test_another_metric_is_written_as_plain_numbers() -> None:
    findings = make_findings({name: [100 * value for value in values] for name, values in TIE.items()}, metric="mean gain")
    verdict = state_verdict(findings)
    assert "+2 in mean gain (95 % interval " in verdict.headline
    assert "points" not in " ".join([verdict.headline, *verdict.details])
    assert results_content(findings).columns[1:3] == ("Mean gain", "To SGD")
    assert results_content(findings).rows[0][1].startswith("72 ± ")
    assert "Mean gain against measured time" in render_page(findings)


def test_write_page_writes_the_page_and_nothing_else(page: str, tmp_path: Path) -> None:
    write_page(FULL, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]

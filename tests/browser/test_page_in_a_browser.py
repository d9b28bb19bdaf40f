"""The page in a real browser: quiet, no wider than a phone, sorted and read by pointer and keys, in light and dark."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import SKIP, Tab, browser_tab, find_browser

from msam.report import write_page
from reported import CALIBRATED, FULL

pytestmark = pytest.mark.skipif(find_browser() is None, reason=SKIP)

SIZE, SECONDS = 1_500_000, 1.0
_CONTRAST = """
(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(color).slice(0, 3).map((c) => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (one) => {
    for (let each = one; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "TITLE"].includes(one.tagName)) continue;
    const style = getComputedStyle(one);
    const color = one.tagName === "text" ? style.fill : style.color;
    const [high, low] = [luminance(color), luminance(behind(one))].sort((a, b) => b - a);
    if ((high + .05) / (low + .05) < 4.5) poor.push([one.tagName, walker.currentNode.data.slice(0, 40), color, behind(one)]);
  }
  return JSON.stringify(poor);
})()
"""
_CUT = """
JSON.stringify([...document.querySelectorAll("svg[role=img]")].flatMap((svg) => {
  const room = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < room.left - 1 || box.right > room.right + 1 || box.top < room.top - 1 || box.bottom > room.bottom + 1;
  }).map((text) => [svg.id, text.textContent]);
}))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page([CALIBRATED, FULL], path)
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser_tab(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("width", [320, 400, 800, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_quiet_and_never_scrolls_sideways(tab: Tab, page: Path, width: int, dark: bool) -> None:
    tab.open(page, width=width, dark=dark)
    assert tab.said() == []
    assert [address for address in tab.loaded() if not address.startswith("data:")] == [page.as_uri()]
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.body.scrollWidth") <= width
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert json.loads(tab.run(_CONTRAST)) == []


def test_it_is_small_and_soon_there(tab: Tab, page: Path) -> None:
    assert page.stat().st_size < SIZE
    tab.open(page)
    took = tab.run("performance.getEntriesByType('navigation')[0].domInteractive / 1000")
    assert 0 < took < SECONDS


def test_no_column_label_or_figure_is_lost_on_a_phone(tab: Tab, page: Path) -> None:
    tab.open(page, width=400)
    assert json.loads(tab.run(_CUT)) == [], "all texts lie within their figures"
    widths = "[...document.querySelectorAll('figure svg[role=img]')].map((svg) => svg.getBoundingClientRect().width)"
    assert tab.run(f"Math.min(...{widths})") >= 300
    reached = """JSON.stringify([...document.querySelectorAll(".scroll")].map((box) => {
      box.scrollLeft = 1e6;
      const last = box.querySelector("thead th:last-child").getBoundingClientRect();
      const first = box.querySelector("thead th:first-child").getBoundingClientRect();
      return last.right <= innerWidth && last.left >= first.right - 1;
    }))"""
    assert all(json.loads(tab.run(reached))), "the last column can be reached, beside the first, which stays"


def test_a_press_sorts_the_other_way_round_and_the_third_brings_the_order_back(tab: Tab, page: Path) -> None:
    tab.open(page)
    table = "document.querySelector('#part2-results .scroll[aria-label=Results] table')"
    cells = f"JSON.stringify([...{table}.tBodies[0].rows].map((row) => row.cells[1].textContent))"
    button = f"{table}.querySelectorAll('thead button')[1]"
    order = f"{button}.parentElement.getAttribute('aria-sort')"
    before = json.loads(tab.run(cells))
    numbers = [float(text.split()[0]) for text in before]
    assert numbers != sorted(numbers)
    for said, expected in (("descending", sorted(numbers, reverse=True)), ("ascending", sorted(numbers)), (None, numbers)):
        tab.run(f"{button}.click()")
        assert [float(text.split()[0]) for text in json.loads(tab.run(cells))] == expected
        assert tab.run(order) == said
    tab.run(f"{button}.focus()")
    tab.press("Enter")
    assert tab.run(order) == "descending", "by the keyboard, too"
    assert tab.run("document.getElementById('said').textContent") == "Sorted by Accuracy, %, descending"


def test_sections_of_a_table_keep_their_rows(tab: Tab, page: Path) -> None:
    tab.open(page)
    table = "document.querySelector('#branches table')"
    names = f"JSON.stringify([...{table}.rows].map((row) => row.cells[0].textContent))"
    before = json.loads(tab.run(names))
    tab.run(f"{table}.querySelectorAll('thead button')[3].click()")
    assert json.loads(tab.run(names)) == before


def test_a_point_says_its_value_under_the_pointer(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.run("document.getElementById('part2-search').scrollIntoView({block: 'start', behavior: 'instant'})")
    tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # scrolling hides what is shown
    place = "(() => { const box = document.querySelector('#part2-search .pt').getBoundingClientRect();"
    x, y = json.loads(tab.run(f"{place} return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]); }})()"))
    assert tab.run("getComputedStyle(document.getElementById('tip')).display") == "none"
    tab.move(x + 1, y + 1)
    tip = tab.run("document.getElementById('tip').textContent")
    assert tip == "SAM, rho = 0.01, learning rate 1x: 53.0 %, beyond the cliff"
    assert tab.run("document.getElementById('tip').getBoundingClientRect().right") <= 1280
    tab.move(2, 2)
    assert tab.run("document.getElementById('tip').textContent") == ""


def test_points_are_read_one_after_the_other_by_keys(tab: Tab, page: Path) -> None:
    tab.open(page, width=400)
    tab.run("document.querySelector('#forest .panel').focus()")
    told = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
        tab.press(key)
        told.append(tab.run("document.getElementById('tip').textContent"))
    assert told[0] == told[2] != told[1] and told[0].startswith("SGD, twice the passes, seed 0: ")
    assert told[3].startswith("Modality-Aware SAM: +2.0 points, "), "round to the last"
    assert tab.run("document.getElementById('tip').getBoundingClientRect().right") <= 400
    tab.press("Escape")
    assert tab.run("document.getElementById('tip').textContent") == ""


def test_keys_reach_contents_tables_and_figures(tab: Tab, page: Path) -> None:
    tab.open(page)
    seen = set()
    for _ in range(60):
        tab.press("Tab")
        seen.add(tab.run("(document.activeElement.closest('nav, table, .panel, .scroll') || document.activeElement).tagName"))
    assert {"NAV", "DIV", "A", "TABLE"} <= seen
    outline = tab.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "and what has the focus is seen to have it"


def test_a_screen_reader_meets_names(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.run("document.querySelector('#results thead button').click()")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]
    for role in ("image", "button", "link", "table", "region", "columnheader", "rowheader", "heading", "group"):
        names = [name for found, name in named if found == role]
        assert names and all(names), role
    assert [name for role, name in named if role == "navigation"] == ["Contents"]


def test_without_scripts_all_is_there(tab: Tab, page: Path) -> None:
    tab.open(page, width=400, scripts=False)
    tree = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]

    def count(what: str) -> int:
        return len(tab.call("DOM.querySelectorAll", nodeId=tree, selector=what)["nodeIds"])

    assert count("thead button") == 0 and count("thead th") > 20
    assert count(".pt > title") > 50, "the browser itself shows these on hover"
    assert count("details") == 0, "nothing is folded away"
    assert tab.said() == []

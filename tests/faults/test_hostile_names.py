"""Names come from other people's files: in a table, a figure and a page they are text, and nothing else."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import rich.console

from command import PATIENCE
from hand_made import FIRST_PROTOCOL
from msam.compare import Findings, find_out
from msam.compare.recipes import find_recipe
from msam.compare.records import Record, RunKey, make_record
from msam.diagnosis.trained import diagnose_task
from msam.report import print_report, write_page
from msam.report.diagnosis import print_diagnosis, print_model_diagnosis
from msam.report.page import render_page
from msam.shown import NAME_LENGTH, make_visible, map_strings, show_name, show_names
from msam.terminal import Console
from msam.training import run_training
from tasks import BASE, small_task

HOSTILE = {
    "script": "<script>document.title='ran'</script>",
    "attribute": "\" onmouseover=\"document.title='ran'",
    "apostrophe": "' onfocus='document.title=1' autofocus='",
    "markup": "[red]x[/red]",
    "unclosed markup": "[/x",
    "emoji": ":smile:",
    "mathematics": "$x_{",
    "format": "{0.__class__}{base}%s",
    "escape": "\x1b[31mred\x1b]8;;http://127.0.0.1/\x07",
    "one-byte escape": "\x9b31m",
    "direction": "abc\u202egnp.exe",
    "zero width": "a\u200bb\ufeff",
    "newline": "one\nAdvice: use it\r\u2028",
    "surrogate": "\ud800",
    "template": "{{ 7 * 7 }}{% raw %}",
    "style": "</style></svg></title><b>",
    "ids": 'id="x" href="#y" url(#z) #010203',
    "long": "n" * 300,
    "wide": "\u97f3" * 60,
    "broad": "W" * 60,
    "empty": "",
}
SEEN_BY_A_TERMINAL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@cache
def trained() -> list[Record]:
    """Records of real runs, of modalities 'a' and 'b'."""
    runs = [("base", None), ("sam", 0.1), ("modality_aware_sam", 0.1), ("alone:a", None), ("alone:b", None)]
    return [
        make_record(RunKey(method, strength, seed), {}, run_training(small_task(), find_recipe(method), strength, seed))
        for method, strength in runs
        for seed in (0, 1)
    ]


def findings_of(name: str) -> Findings:
    """Findings in which a modality has the name, and task, metric, optimizer, settings, versions and command, too."""
    renamed = {"a": name, "alone:a": f"alone:{name}"}
    records = map_strings(trained(), lambda text: renamed.get(text, text))
    task = {
        "name": name,
        "modalities": [name, "b"],
        "metric": name,
        "epochs": 4,
        "optimizer": {"name": name, "lr": 0.05, name or "x": 1},
        name or "key": [name],
    }
    comparison = {
        "task": task,
        "versions": {"torch": name},
        "methods": ["base", "sam", "modality_aware_sam"],
        "seeds": 2,
        "rho": [],
        "command": f"msam compare {name}",
        **FIRST_PROTOCOL,
    }
    return find_out(json.loads(json.dumps(comparison)), json.loads(json.dumps(records)))


def printed(findings: Findings, console: type[rich.console.Console], **options: Any) -> str:
    out = io.StringIO()
    print_report(findings, console(file=out, width=100, **options), Path("report.html"))
    print_diagnosis(findings, console(file=out, width=100, **options))
    return out.getvalue()


@cache
def usual_page() -> str:
    return render_page(findings_of("usual"))


def scripts_of(page: str) -> list[str]:
    return re.findall(r"<script[^>]*>(.*?)</script", page, flags=re.DOTALL)


class Reader(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, key, value) for key, value in attrs] or [(tag, "", None)]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


# -- text ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(HOSTILE.values()), ids=list(HOSTILE))
def test_what_is_shown_of_a_name_has_one_short_line_without_control(name: str):
    shown = show_name(name)
    assert len(shown) <= NAME_LENGTH and not SEEN_BY_A_TERMINAL.search(shown) and "\n" not in shown
    assert show_name(shown) == shown
    shown.encode("utf-8")


def test_usual_names_stay():
    for name in ("image", "\u97f3\u58f0", "Bild und Ton", "r\u00e9sum\u00e9", "x_1 (left)"):
        assert show_name(name) == make_visible(name) == name


def test_names_that_are_shortened_are_kept_apart():
    names = ["x" * 300, "x" * 301, "x" * 302, "y"]
    shown = show_names(names)
    assert len(set(shown.values())) == 4 and shown["y"] == "y"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", list(HOSTILE.values()), ids=list(HOSTILE))
def test_the_console_prints_text_as_it_is(name: str, terminal: bool):
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=terminal, color_system="truecolor" if terminal else None)
    console.print(f"<{name}>")
    assert out.getvalue() == f"<{make_visible(name, keep=chr(10))}>\n"


# -- the report ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("console", [Console, rich.console.Console], ids=["ours", "rich"])
@pytest.mark.parametrize("name", list(HOSTILE.values()), ids=list(HOSTILE))
def test_tables_show_the_name_and_nothing_of_what_it_asks_for(name: str, console: type[rich.console.Console]):
    shown = printed(findings_of(name), console)
    assert not SEEN_BY_A_TERMINAL.search(shown)
    assert not any(line.startswith("Advice: use it") for line in shown.splitlines())
    flat = "".join(shown.split())
    assert "".join(show_name(name).split()) in flat
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in flat
    colored = printed(findings_of(name), console, force_terminal=True, color_system="truecolor")
    assert not re.search("\x1b\\[[0-9;]*31m|\x1b\\]", colored)


@pytest.mark.parametrize("name", list(HOSTILE.values()), ids=list(HOSTILE))
def test_the_page_shows_the_name_and_nothing_of_what_it_asks_for(name: str):
    page = render_page(findings_of(name))
    assert not SEEN_BY_A_TERMINAL.search(page)
    ours, theirs = read(usual_page()), read(page)
    assert {(tag, key) for tag, key, _ in theirs.found} <= {(tag, key) for tag, key, _ in ours.found} | {("small", "")}
    assert not any(key.startswith("on") for _, key, _ in theirs.found)
    assert [tag for tag, _, _ in theirs.found].count("script") == 1
    assert scripts_of(page) == scripts_of(usual_page()), "the one that is the same on every page"
    assert show_name(name) in theirs.text
    figures = re.findall(r"<svg viewBox.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == len(re.findall(r"<svg viewBox.*?</svg>", usual_page(), flags=re.DOTALL))
    texts = ["".join(ElementTree.fromstring(figure).itertext()) for figure in figures]
    assert any(show_name(name) in text for text in texts)
    ids = [value for _, key, value in theirs.found if key == "id"]
    assert len(ids) == len(set(ids))


def test_the_page_forbids_what_it_does_not_need():
    [policy] = [value for _, key, value in read(usual_page()).found if key == "content" and "src" in value]
    [script] = scripts_of(usual_page())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert re.findall("script-src[^;]*", policy) == [f"script-src 'sha256-{digest}'"], "no script but the page's own"


def test_a_name_is_never_a_format():
    findings = findings_of("{0.__class__}{base}%s")
    assert findings.base.label == "{0.__class__}{base}%s"


@pytest.mark.parametrize("name", ["\x1b[31mred", HOSTILE["newline"], HOSTILE["markup"], HOSTILE["long"]])
def test_the_diagnosis_of_a_model_shows_names_as_text(name: str):
    found = diagnose_task(replace(small_task((name, "b")), epochs=1), BASE)
    out = io.StringIO()
    print_model_diagnosis(found, rich.console.Console(file=out, width=140))
    for text in (out.getvalue(), str(found), *found.findings()):
        assert not SEEN_BY_A_TERMINAL.search(text)
    assert "".join(show_name(name)[:12].split()) in "".join(str(found).split())
    assert name in found.to_dict()["modalities"], "data keep the name"


# -- a browser -------------------------------------------------------------------------------------------------------------


def find_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Listener(BaseHTTPRequestHandler):
    """Takes down every request."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def listener():
    handler = type("Fresh", (Listener,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def open_page(page: Path, home: Path) -> str:
    """Load a page in a browser without a window, and give what it made of it."""
    browser = find_browser()
    if browser is None:
        pytest.skip("no chromium or chrome is installed here")
    command = [browser, "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={home}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.insert(1, "--no-sandbox")
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def traps(address: str) -> dict[str, str]:
    """Names that mark the page, or ask for something, wherever they are not text."""
    mark = "document.documentElement.dataset.ran=1"
    return {
        "script": f"<script>{mark}</script>",
        "error": f"<img src={address}/i onerror={mark}>",
        "svg": f"</text><svg onload={mark}>",
        "attribute": f'" autofocus tabindex=0 onfocus="{mark}',
        "style": f"</style><style>@import '{address}/s'",
        "link": f"<link rel=stylesheet href={address}/l>",
        "title": f"</title><script src={address}/t></script>",
    }


@pytest.mark.parametrize("kind", list(traps("")))
def test_in_a_real_browser_no_name_runs_and_none_asks_for_anything(kind: str, tmp_path: Path, listener, monkeypatch):
    # Names are shortened in what is shown; here the whole trap must be on the page, or nothing would be tested.
    monkeypatch.setattr("msam.shown.show_name.__defaults__", (300,))
    address, asked = listener
    trap = traps(address)[kind]
    findings = findings_of(trap)
    assert trap in findings.base.contributions
    write_page(findings, tmp_path / "report.html")
    seen = open_page(tmp_path / "report.html", tmp_path / "home")
    assert "How this came about" in seen
    assert "data-ran" not in seen
    assert asked == []


@pytest.mark.parametrize("guarded", [False, True])
def test_the_browser_would_have_told_and_the_policy_alone_would_have_stopped_it(guarded: bool, tmp_path: Path, listener):
    address, asked = listener
    page = usual_page()
    traps_in_it = page.replace("<main>", "<main>" + "".join(traps(address)[kind] for kind in ("script", "error")))
    policy = re.compile(r"<meta http-equiv[^>]*>\n")
    assert policy.search(page)
    (tmp_path / "page.html").write_text(traps_in_it if guarded else policy.sub("", traps_in_it), encoding="utf-8")
    seen = open_page(tmp_path / "page.html", tmp_path / "home")
    assert ("data-ran" in seen) is not guarded
    assert asked == ([] if guarded else ["/i"])

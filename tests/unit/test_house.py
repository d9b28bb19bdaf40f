"""The house itself: linters, types, layers, the README's promises."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "ruff", "check", "."],
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "mypy"],
        [BIN / "lint-imports"],
    ],
    ids=lambda command: " ".join([command[0].name, *command[1:]]),
)
def test_static_checks_pass(command):
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_light():
    code = "import sys, json, msam; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    loaded = json.loads(run_python(code))
    heavy = {"matplotlib", "scipy", "pandas", "jinja2", "rich", "tyro", "joblib", "sklearn"}
    assert not heavy & set(loaded)
    assert "torch" in loaded


def test_import_adds_less_than_half_a_second_to_torch():
    code = "import torch, time; started = time.perf_counter(); import msam; print(time.perf_counter() - started)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.5


def test_public_names_exist_and_are_documented():
    import msam

    for name in msam.__all__:
        assert getattr(msam, name).__doc__, name


def test_readme_diff_runs_as_printed():
    """The integration that the README shows as a diff is real: its plain side and its new side both train."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [diff] = re.findall(r"```diff\n(.*?)```", readme, flags=re.DOTALL)
    changed = [line for line in diff.splitlines() if line.startswith("+")]
    assert 0 < len(changed) <= 4
    for drop in "+-":
        lines = [line for line in diff.splitlines() if not line.startswith(drop)]
        code = "\n".join(line[1:] if line[:1] in "+- " else line for line in lines)
        assert train_with(code), code


def train_with(code: str) -> bool:
    """Run a README training loop on a small problem; tell whether it changed the weights and ended finite."""
    import torch

    import msam

    torch.manual_seed(0)
    encoders = {"image": torch.nn.Linear(4, 3), "audio": torch.nn.Linear(2, 3)}
    model = msam.fusion.LateFusion(encoders, head=torch.nn.Linear(6, 2))
    before = model.head.weight.detach().clone()
    batch = (torch.randn(8, 4), torch.randn(8, 2), torch.randint(2, (8,)))
    names = {"torch": torch, "model": model, "loader": [batch] * 3, "loss_fn": torch.nn.functional.cross_entropy}
    exec(code, names)
    return bool(torch.isfinite(model.head.weight).all()) and not torch.equal(before, model.head.weight)


def test_embedded_data_is_small_and_licensed():
    files = ROOT / "src" / "msam" / "data" / "files"
    assert (files / "mfeat.npz.xz").stat().st_size < 1_000_000
    licence = (files / "mfeat-LICENSE.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in licence
    assert "10.24432/C5HC70" in licence


def test_ci_runs_the_readmes_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv .venv-test .*$", readme, flags=re.MULTILINE)
    assert len(commands) == 1
    assert commands[0].endswith("pytest")
    assert "grep -m1 '^python3 -m venv .venv-test' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_between_pages_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_of_weights_are_read_without_running_what_is_in_them():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    code = [path for folder in ("src", "examples", "benchmarks", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in [*pages, *code]:
        for call in re.findall(r"torch\.load\([^\n]*", path.read_text(encoding="utf-8")):
            assert "weights_only=True" in call or path == Path(__file__), f"{path}: {call}"


def test_the_findings_are_listed_and_each_says_what_was_seen():
    listed = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "findings").glob("*.sh"):
        assert f"({path.name})" in listed
        said = path.read_text(encoding="utf-8")
        assert "set -euo pipefail" in said
        assert "mktemp -d" in said
        assert "==" in said, "packages are pinned"

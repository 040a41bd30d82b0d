"""The house rules that no other tool holds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(p.relative_to(ROOT) for p in (ROOT / "live_restore").rglob("*.py") if p.name != "__init__.py")


def test_every_module_stands_in_the_readmes_tree():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [str(module) for module in MODULES if not re.search(rf"\b{module.stem}\.py\b", readme)]
    assert not missing


def test_every_link_of_the_documentation_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_module_says_what_it_is():
    for module in MODULES:
        text = (ROOT / module).read_text(encoding="utf-8")
        assert text.startswith('"""') and len(text.split('"""')[1]) > 60, f"{module} has no telling docstring"


def test_no_machines_path_is_in_the_tree():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("live_restore/**/*.py"), *ROOT.glob("scripts/*.py")]:
        found = re.findall(r"/(?:tmp|work|home|root)/\w+", path.read_text(encoding="utf-8"))
        assert not found, f"{path} names {found}"


def test_constraints_pin_what_the_project_needs():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in _lines("constraints.txt")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["train"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[\[<>=]", word)[0].lower().replace("_", "-") for word in wanted} - {"live-restore"}
    assert names <= pinned, names - pinned
    assert all("==" in line for line in _lines("constraints.txt"))


def _lines(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


HEAVY = ("torch", "bioimageio", "matplotlib", "h5py", "zarr", "onnx", "tensorflow", "skimage", "ome_writers")


@pytest.mark.parametrize("module", ["live_restore.cli", "live_restore.restorer", "live_restore.offline"])
def test_what_restores_loads_nothing_heavy(module):
    """A cold start stays quick because nothing is imported before it is needed."""
    script = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

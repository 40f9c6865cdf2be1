"""What is run for a release: its notes, cut from CHANGELOG.md, and the scripts that the workflows name."""

import os
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / ".ci" / "release_notes"
CHANGELOG = """# Changelog

## [Unreleased]

## [0.3.0] - 2027-01-31

### Added

- A thing, with a [link](docs/x.md).

### Fixed

- Another.

## [0.2.0] - 2026-11-26

The first.
"""


@pytest.fixture(scope="module")
def release_notes():
    loader = SourceFileLoader("release_notes", str(SCRIPT))
    module = module_from_spec(spec_from_loader("release_notes", loader))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # beside the scripts
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module.release_notes


def test_the_notes_are_the_section_of_the_version(release_notes):
    expected = "### Added\n\n- A thing, with a [link](docs/x.md).\n\n### Fixed\n\n- Another.\n"
    assert release_notes("v0.3.0", "0.3.0", CHANGELOG) == expected


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "problem"),
    [
        ("v0.3.1", "0.3.0", CHANGELOG, "The tag is v0.3.1, but pyproject.toml has version 0.3.0"),
        ("0.3.0", "0.3.0", CHANGELOG, "Tag the commit as v0.3.0"),
        ("v0.2.0", "0.2.0", CHANGELOG, "The second section of CHANGELOG.md is not [0.2.0]"),
        ("v0.3.0", "0.3.0", CHANGELOG.replace(" - 2027-01-31", ""), "with a date"),
        ("v0.3.0", "0.3.0", CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n"), "an empty [Unreleased]"),
        ("v0.3.0", "0.3.0", CHANGELOG.replace("## [Unreleased]\n", ""), "an empty [Unreleased]"),
        ("v0.3.0", "0.3.0", "# Changelog\n", "an empty [Unreleased]"),
        ("v0.3.0", "0.3.0", "## [Unreleased]\n## [0.3.0] - 2027-01-31\n## [0.2.0] - 2026-11-26\n", "is empty"),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(release_notes, tag, version, changelog, problem):
    with pytest.raises(SystemExit, match=re.escape(problem)):
        release_notes(tag, version, changelog)


def test_the_changelog_has_the_form_that_releases_need():
    """An unreleased section first, then dated ones; in each, every kind of change at most once and in this order."""
    kinds = ["Added", "Changed", "Fixed", "Removed"]
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert re.fullmatch(r"\[Unreleased\]", sections[0].splitlines()[0])
    for section in sections[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", section.splitlines()[0])
    for section in sections:
        found = re.findall(r"^### (.*)$", section, flags=re.MULTILINE)
        assert found == [kind for kind in kinds if kind in found]


def test_the_script_takes_a_tag(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "v99.0.0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The tag is v99.0.0, but pyproject.toml has version ")
    assert subprocess.run([sys.executable, SCRIPT], capture_output=True, check=False).returncode == 1


def test_what_the_workflows_run_is_there():
    workflows = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}
    named = {name for text in workflows.values() for name in re.findall(r"\.ci/(\w+)", text)}
    assert {"extras", "python312", "ray", "release_notes", "wheel"} <= named
    assert [name for name in named if not os.access(ROOT / ".ci" / name, os.X_OK)] == []
    assert 'tags: ["v*"]' in workflows["release.yml"]


def test_the_workflows_are_yaml():
    yaml = pytest.importorskip("yaml", reason="needs the extra datasets")
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    before = {name: set(job.get("needs", [])) for name, job in release["jobs"].items()}
    assert before == {"check": set(), "test": {"check"}, "package": {"check"}, "publish": {"test", "package"},
                      "release": {"publish"}}  # fmt: skip
    test = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert set(test[True]) == {"push", "pull_request", "workflow_call"}  # YAML takes `on` for true

"""The pages of the documentation: links lead somewhere, and the README has the two commands that CI runs."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tfds_builders/*/README.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_readme_has_two_commands_that_install():
    install = re.findall(r"^pip install -e .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(install) == 2
    assert install[0].endswith("&& python run.py --config=experiments/fdrl.py")
    assert "pytest" in install[1]

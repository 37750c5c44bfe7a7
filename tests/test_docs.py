"""The pages for people who work on the code: links lead somewhere, decisions are complete and indexed."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DECISIONS = ROOT / "docs" / "decisions"
PAGES = [ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").rglob("*.md"))]
SECTIONS = ["Context", "What was measured", "Decision", "When to look again"]


def pages_of_decisions():
    return sorted(DECISIONS.glob("[0-9]*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_decisions_are_numbered_without_gaps():
    numbers = [int(page.name[:3]) for page in pages_of_decisions()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


@pytest.mark.parametrize("page", pages_of_decisions(), ids=lambda page: page.stem)
def test_a_decision_has_its_sections_and_its_line_in_the_index(page):
    text = page.read_text("utf-8")
    title = re.match(r"# \d+\. (.+)\n", text).group(1)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert f"[{page.name[:3]}]({page.name}) {title}\n" in (DECISIONS / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", [ROOT / "WORKSPACE.md", *pages_of_decisions()], ids=lambda page: page.stem)
def test_the_map_and_decisions_name_files_that_exist(page):
    paths = set(re.findall(r"`((?:dcp_tf|tflite|tools|tests|docs)/(?:\w+/)*(?:\w+\.py)?)`", page.read_text("utf-8")))
    assert paths or page in pages_of_decisions()
    assert not sorted(path for path in paths if not (ROOT / path).exists())

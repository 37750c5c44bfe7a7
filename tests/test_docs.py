"""The pages for people who work on the code: links lead somewhere, decisions are complete and indexed."""

import ast
import importlib.util
import pathlib
import re

import pytest

import dcp_tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
DECISIONS = ROOT / "docs" / "decisions"
PAGES = [ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [page for page in PAGES if page.parent != DECISIONS]
# What stands for several flags, and those of other programs.
OTHER_FLAGS = {"flag", "target_", "target"}
SECTIONS = ["Context", "What was measured", "Decision", "When to look again"]


def pages_of_decisions():
    return sorted(DECISIONS.glob("[0-9]*.md"))


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_version_is_the_same_everywhere():
    heading = rf"^## \[{re.escape(dcp_tf.__version__)}\] - (\d{{4}}-\d\d-\d\d)$"
    (changed,) = re.findall(heading, text_of("CHANGELOG.md"), re.MULTILINE)
    assert f"\nversion: {dcp_tf.__version__}\ndate-released: {changed}\n" in text_of("CITATION.cff")


def text_of(name):
    return (ROOT / name).read_text("utf-8")


def test_the_readme_is_read_in_minutes():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


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


def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flags_of_benchmarks():
    return set(
        re.findall(r'(?i:program)\.\w+\(\s*"(\w+)"', "".join(p.read_text() for p in ROOT.glob("benchmarks/*.py")))
    )


@pytest.fixture(scope="module")
def programs():
    return {name: set(program.flags) for name, program in hooks().programs().items()}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_flag_that_a_page_names_exists(page, programs):
    text = page.read_text("utf-8")
    known = set().union(*programs.values(), flags_of_benchmarks(), OTHER_FLAGS)
    unknown = {
        flag
        for flag in re.findall(r"(?<![\w-])--(\w+)(?![\w.])", text)
        if {flag, flag.removeprefix("no")}.isdisjoint(known)
    }
    assert not unknown


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_command_has_only_flags_of_its_program(page, programs):
    commands = re.findall(
        r"(?:dcp_tf\.tools\.|dcp-tf )(\w+)((?:[^\n`|]|\\\n)*)", page.read_text("utf-8").replace("\\\n", " ")
    )
    for name, arguments in commands:
        name = {"inspect": "inspect_model"}.get(name, name)
        if name in programs:
            flags = set(re.findall(r"(?<![\w-])--(\w+)", arguments))
            assert {f for f in flags if {f, f.removeprefix("no")}.isdisjoint(programs[name])} == set(), name


def test_the_tables_have_each_flag_once_with_its_default(programs):
    module = hooks()
    table = module.flag_tables()
    for flag in set().union(*programs.values()):
        assert table.count(f"| `--{flag}`{{ #flag-{flag} }} |") == 1, flag
    assert "| `--rate`{ #flag-rate } | `0.5`<br>inspect_model: none |" in table
    sections = module.program_sections()
    assert all(f"## {name}\n" in sections for name in programs)


def texts_of_errors():
    """The texts in the package, with `...` in place of what is filled in."""
    for path in (path for folder in ("dcp_tf", "tflite", "tools") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_errors_that_the_faq_explains_can_be_met():
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "faq.md").read_text("utf-8"), re.MULTILINE)
    assert len(headings) > 25
    texts = list(texts_of_errors())
    patterns = {text: re.compile(".*".join(map(re.escape, text.split("...")))) for text in headings}
    assert not [text for text, pattern in patterns.items() if not any(pattern.search(found) for found in texts)]

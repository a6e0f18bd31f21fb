"""Every page's links lead somewhere, and the reference of commands is that of the code."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *("README.md", "CONTRIBUTING.md", ".github/SECURITY.md", "benchmarks/README.md"),
    *(f"packages/{name}/README.md" for name in ("common-utils", "layermatch", "imwa", "randommask")),
]


def anchors(text: str) -> set[str]:
    """Names of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", without_code(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return set(found)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def broken(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere; those to other machines are not followed."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_code(text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (
            anchor
            and (file.suffix != ".md" or anchor not in anchors(file.read_text(encoding="utf-8") if path else text))
        ):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    assert broken(path, path.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_seen():
    page = ROOT / "README.md"
    text = "# One `x`: two\n[a](LICENSE) [b](nowhere.md) [c](#one-x-two) [d](#three) [e](https://x.y) `[f](none)`\n"
    assert broken(page, text) == ["nowhere.md", "#three"]


def test_the_reference_of_commands_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci/reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.stale() == [], "Run: python .ci/reference.py"
    assert "`--labels-per-class`" in made.reference("layermatch")


def test_one_table_of_promises_stands_on_both_pages():
    tables = [
        re.findall(r"<!-- promises.*?<!-- end of the promises -->", (ROOT / page).read_text(), re.DOTALL)
        for page in PAGES
    ]
    found = [table for table in tables if table]
    assert len(found) == 2
    assert found[0] == found[1]

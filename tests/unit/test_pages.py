"""What the pages point at is there, and what there is, the pages name."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from cli.main import GROUPS
from cli.main import app as main
from skyshore.catalogue.table import ENTRIES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
SOURCE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|toml|proto|json|sh))`")


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: lower case, punctuation dropped, blanks to dashes."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(prose(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        targets = [page.parent / link.partition("#")[0] for link in LINK.findall(prose(page))]
        waiting += [target for target in targets if target.suffix == ".md"]
        waiting += [each for target in targets if target.is_dir() for each in target.glob("*.md")]
    assert {page for page in PAGES if page.name != "CHANGELOG.md"} <= seen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_in_full_is_there(page: Path) -> None:
    """From the root, or from the folder that the paragraph is about; but for the policy that a reader is to write."""
    known = {str(path.relative_to(ROOT)) for top in ROOT.iterdir() if top.name[0] != "." for path in top.rglob("*.*")}
    named = [name for name in SOURCE.findall(prose(page)) if "nearest" not in name]
    assert [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known)] == []


def test_the_pages_show_what_most_commands_are_for() -> None:
    assert len({words[0] for _, words in commands_shown()}) >= 15


def test_whatever_the_catalogue_fetches_is_among_the_licences() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "licences.md").read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(ENTRIES)


def commands_shown() -> list[tuple[str, list[str]]]:
    """Every `skyshore …` of a block or of inline code, with its page; what a shell adds around it is left out."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        inline = re.findall(r"`(skyshore [^`\n…]+)`", prose(page).replace("\n", " "))
        for line in [*re.findall(r"^(?: {4})?(?:\$ )?(?:[A-Z_]+=\S+ )*(skyshore .+)$", text, re.M), *inline]:
            words = shlex.split(re.split(r" \(?`| [|>&] |;", line)[0], comments=True)[1:]
            found.append((page.name, words))
    return found


@pytest.mark.parametrize(
    ("page", "words"), commands_shown(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_every_command_that_a_page_shows_can_be_typed(page: str, words: list[str]) -> None:
    """Parsed, not run: the command is there, and so is each of its options."""
    name, *rest = [word for word in words if word != "--help"]
    command = typer.main.get_command(main).commands[name]  # type: ignore[attr-defined]
    if name in GROUPS and rest:
        name, *rest = rest
        command = typer.main.get_command(import_module(GROUPS[words[0]][0]).app)
        command = command.commands[name]  # type: ignore[attr-defined]
    if rest:  # a bare name in prose is a mention
        command.make_context(name, rest)

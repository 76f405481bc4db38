"""Refuse the words that `scripts/words.toml` lists, in code, messages, protos and pages; name what to write instead.

A name is an identifier of Python code, or any word with an underscore, an inner capital or backticks around it. Names
are split at underscores and capitals: `let_go` and `LetGo` are "let go". All other words are text: those of comments,
strings and pages. The name of a test is a sentence, so it counts as text.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.check_sizes import ROOT

RULES = Path(__file__).with_name("words.toml")
SUFFIXES = {".py", ".md", ".proto", ".toml", ".yaml", ".sh", ".html", ".css", ".js", ".svg", ""}
# Generated or recorded files; and the list, this check and its test, which quote the words.
LEFT_OUT = ("skyshore/v1/", "tests/replay/golden/", "tests/data/", "docs/benchmarks", "LICENSE")
LEFT_OUT += ("scripts/words.toml", "scripts/check_words.py", "tests/unit/test_word_check.py")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
BETWEEN = re.compile(r"[\s#*>/]*")


@dataclass(frozen=True, slots=True)
class Rule:
    """One phrase as lower-case words, what replaces it, and where it holds ("names", "text", "both" or "paths")."""

    phrase: tuple[str, ...]
    use: str
    where: str
    only: tuple[str, ...]
    left_out: tuple[str, ...]

    def holds_in(self, path: str) -> bool:
        """True if the rule applies to the file at `path` (relative to the root)."""
        return (not self.only or path.startswith(self.only)) and not path.startswith(self.left_out)


@dataclass(frozen=True, slots=True)
class Hit:
    """A listed phrase in a file; line 0 is the file's own path."""

    path: str
    line: int
    rule: Rule

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.rule.phrase)} → {self.rule.use}"


class WordList:
    """The rules, found by the last word of their phrase."""

    def __init__(self, rules: list[Rule], path: str) -> None:
        self._by_end: dict[tuple[str, bool], list[Rule]] = {}
        for rule in rules:
            for is_name in (True, False):
                if rule.where in ("both", "names" if is_name else "text") and rule.holds_in(path):
                    self._by_end.setdefault((rule.phrase[-1], is_name), []).append(rule)

    def ending_at(self, words: list[str], is_name: bool) -> Iterator[Rule]:
        """Rules whose phrase is the last part of `words`."""
        for rule in self._by_end.get((words[-1], is_name), ()):
            if tuple(words[-len(rule.phrase) :]) == rule.phrase:
                yield rule


def read_rules() -> list[Rule]:
    """One rule per phrase of the list."""
    entries = tomllib.loads(RULES.read_text(encoding="utf-8"))["rule"]
    return [
        Rule(
            tuple(phrase.split()),
            entry["use"],
            entry.get("in", "both"),
            tuple(entry.get("only", ())),
            tuple(entry.get("except", ())),
        )
        for entry in entries
        for phrase in entry["words"]
    ]


def split(name: str) -> list[str]:
    """`letGo`, `let_go` and `LetGo` as ["let", "go"]."""
    return [piece.lower() for piece in PIECE.findall(name)]


def identifiers(text: str) -> set[int]:
    """Offsets in Python code at which an identifier starts."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {starts[token.start[0] - 1] + token.start[1] for token in tokens if token.type == tokenize.NAME}


def hits(path: str, text: str, rules: list[Rule]) -> Iterator[Hit]:
    """Each listed phrase of a file, in order."""
    listed = WordList(rules, path)
    names = identifiers(text) if path.endswith(".py") else set[int]()
    lines = [match.start() for match in re.finditer("\n", text)]
    run: list[str] = []  # words of text with nothing but blanks between them
    end = 0
    for match in WORD.finditer(text):
        word, start = match.group(), match.start()
        quoted = text[start - 1 : start] == "`" or text[match.end() : match.end() + 1] == "`"
        is_name = start in names or quoted or "_" in word or re.search("[a-z][A-Z]", word) is not None
        if is_name or BETWEEN.fullmatch(text, end, start) is None:
            run.clear()
        end = match.end()
        is_name = is_name and not word.startswith("test_")
        words = [] if is_name else run
        for piece in split(word):
            words.append(piece)
            for rule in listed.ending_at(words, is_name):
                yield Hit(path, bisect_right(lines, start) + 1, rule)


def path_hits(path: str, rules: list[Rule]) -> Iterator[Hit]:
    """Each listed word in the names of a file and its folders."""
    words: list[str] = []
    for piece in split(path):
        words.append(piece)
        for rule in rules:
            if rule.where != "text" and rule.holds_in(path) and tuple(words[-len(rule.phrase) :]) == rule.phrase:
                yield Hit(path, 0, rule)


def tracked() -> list[str]:
    """Text files that git tracks, without those in LEFT_OUT; paths relative to the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [
        line
        for line in listed.splitlines()
        if Path(line).suffix in SUFFIXES and not line.startswith(LEFT_OUT) and (ROOT / line).is_file()
    ]


def main() -> None:
    """Print every hit as `path:line: word → replacement`; exit 1 if there are any, unless called with --warn."""
    rules = read_rules()
    found: list[Hit] = []
    for path in tracked():
        found += [*path_hits(path, rules), *hits(path, (ROOT / path).read_text(encoding="utf-8"), rules)]
    print("".join(f"{hit}\n" for hit in found), end="")
    print(f"{len(found)} uses of words that scripts/words.toml refuses")
    if found and "--warn" not in sys.argv:
        sys.exit("Write what follows the arrow; scripts/words.toml holds the list.")


if __name__ == "__main__":
    main()

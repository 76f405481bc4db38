"""The check of words finds what its list refuses, and nothing else."""

from __future__ import annotations

import ast
import re

import pytest

from scripts.check_names import public_classes
from scripts.check_words import Rule, hits, path_hits, read_rules


def found(text: str, *, path: str = "gateway/x.py", where: str = "both", phrase: str = "let go") -> list[int]:
    rule = Rule(tuple(phrase.split()), "release", where, (), ("skyshore/v1/",))
    return [hit.line for hit in hits(path, text, [rule])]


@pytest.mark.parametrize("name", ["let_go", "LetGo", "letGo", "node_let_go_s", "_let_go"])
def test_a_name_is_split_at_underscores_and_capitals(name: str) -> None:
    assert found(f"x = 1\n{name} = 2\n") == [2]


@pytest.mark.parametrize("name", ["outlet_goal", "let", "let_x_go"])
def test_a_word_inside_another_is_no_hit(name: str) -> None:
    assert found(f"{name} = 2\n") == []


def test_a_phrase_is_found_in_strings_and_in_comments_over_a_line_break() -> None:
    assert found('say("it lets you let go")\n# then we let\n# go of it\n') == [1, 3]
    assert found("We let, go on.\n", path="docs/x.md") == []


def test_names_and_text_are_distinguished() -> None:
    code = '"""Do let go."""\nlet_go()\n'
    assert found(code, where="names") == [2]
    assert found(code, where="text") == [1]
    assert found("Call `let_go` and let go.\n", path="docs/x.md", where="names") == [1]


def test_the_name_of_a_test_is_a_sentence() -> None:
    assert found("def test_all_let_go(): ...\n", where="names") == []


def test_a_file_is_named_by_its_path() -> None:
    rule = Rule(("helpers",), "a word", "paths", (), ())
    assert [hit.line for hit in path_hits("gateway/helpers.py", [rule])] == [0]
    assert list(hits("gateway/x.py", "helpers = 1", [rule])) == []


def test_every_rule_names_a_replacement_and_is_in_lower_case() -> None:
    for rule in read_rules():
        assert rule.use
        assert rule.where in {"names", "text", "both", "paths"}
        assert all(re.fullmatch("[a-z]+", word) for word in rule.phrase), rule.phrase


def test_public_classes_are_found_nested_ones_too() -> None:
    code = "class A:\n    class B: ...\nclass _C: ...\n"
    assert public_classes(ast.parse(code)) == [("A", 1), ("B", 2)]

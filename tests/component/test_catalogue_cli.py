"""`skyshore models` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.models import app


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("SKYSHORE_MODELS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    return CliRunner()


def test_list_names_every_entry_with_its_licence_and_whether_it_is_here(cli: CliRunner) -> None:
    answer = cli.invoke(app, ["list"])
    assert answer.exit_code == 0
    for word in (
        "ssd-mobilenet",
        "nanodet",
        "centernet",
        "yolov5s",
        "smollm2-135m",
        "vtest",
        "bikes",
        "AGPL-3.0",
        "no (",
    ):
        assert word in answer.output


def test_yolov5s_is_not_fetched_without_consent(cli: CliRunner, tmp_path: Path) -> None:
    answer = cli.invoke(app, ["fetch", "yolov5s"])
    assert answer.exit_code == 1
    assert "--accept-licence" in answer.output
    assert not (tmp_path / "yolov5s").exists()


def test_one_bad_name_does_not_keep_the_others_from_being_tried(
    cli: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    answer = cli.invoke(app, ["fetch", "nanodot", "nanodet"])
    assert answer.exit_code == 1
    assert "nanodot" in answer.output
    assert "npm is not installed" in answer.output


def test_verify_of_something_absent_says_how_to_get_it(cli: CliRunner) -> None:
    answer = cli.invoke(app, ["verify", "bikes"])
    assert answer.exit_code == 1
    assert "skyshore models fetch bikes" in answer.output.replace("\n", " ")


def test_precisions_are_for_language_models_only(cli: CliRunner) -> None:
    answer = cli.invoke(app, ["build", "nanodet"])
    assert answer.exit_code == 1
    assert "no language model" in answer.output

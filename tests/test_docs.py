"""What README and docs/ say exists: settings with their defaults, commands with their options, files, links, alerts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from commands.main import Later, app
from gateway.errors import GatewayError, every_kind
from gateway.settings import Settings
from tests.deploy.files import DEPLOY, PROJECT, compose
from tests.deploy.test_prometheus import alerts

DOCS = PROJECT / "docs"
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.glob("*.md"), *PROJECT.glob("training/*.md")])
SETTINGS = DOCS / "settings.md"
TROUBLE = DOCS / "trouble.md"


def documented() -> dict[str, tuple[str, str]]:
    return {
        name: (default, meaning)
        for name, default, meaning in re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", SETTINGS.read_text(), re.M)
    }


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(documented()) == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_documented_default_is_the_default(name: str) -> None:
    field = Settings.model_fields[name]
    default, meaning = documented()[name.upper()]
    assert meaning == field.description
    if field.default_factory is None:
        assert default == _written(field.default)


def everything() -> str:
    """README and the pages for operators."""
    return "\n".join(page.read_text() for page in PAGES if "training" not in page.parts)


def commands() -> list[list[str]]:
    """Every command of a code block or between backticks, as words; several in one line apart."""
    text = everything().replace("\\\n", " ")
    written = re.findall(r"^(?: {4}| {7})(\S.+)$", text, re.M) + re.findall(r"`([^`]+)`", text)
    lines = [line.split("  #")[0] for line in written]
    return [shlex.split(part) for line in lines for part in re.split(r"&&|;|\|", line) if part.count('"') % 2 == 0]


def of(*start: str) -> list[list[str]]:
    """The rest of the commands that begin so, options of the tool itself left out."""
    found = [words[len(start) :] for words in commands() if words[: len(start)] == list(start)]
    assert found
    return found


def check_touchline(words: list[str]) -> None:
    command: Any = get_command(app)
    rest = iter(words)
    while hasattr(command, "commands"):
        name = next(rest)
        if name.startswith("--"):
            assert name in {option for parameter in command.params for option in parameter.opts}, name
            return
        assert name in command.commands, f"there is no touchline {name}"
        command = command.commands[name]
        command = command.load() if isinstance(command, Later) else command
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
    assert used <= known, f"touchline {command.name} does not take {used - known}"


def test_touchlines_commands_and_options_exist() -> None:
    for words in of("touchline"):
        if words and words[0] != "X":
            check_touchline(words)


def test_compose_commands_name_services_and_touchlines_commands() -> None:
    services = compose("gpu")["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    ran = 0
    for given in of("docker", "compose"):
        words = given[2:] if given[:1] == ["--profile"] else given
        assert words is given or given[1] in profiles
        if words[:1] == ["run"]:
            ran += 1
            at = next(index for index, word in enumerate(words) if word in services)
            check_touchline(words[at + 1 :])
            assert services[words[at]]["image"] == compose("gpu")["services"]["gateway"]["image"]
        elif words[:1] in (["logs"], ["build"]):
            assert set(words[1:]) <= services.keys()
        elif words[:1] == ["exec"]:
            assert words[1] in services
        else:
            assert words == [] or words[0] in ("up", "create", "cp", "ps", "down"), words
    assert ran >= 3


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([\w./-]+):", (PROJECT / "Makefile").read_text(), re.M)
    for words in of("make"):
        assert set(words) <= set(targets), words


def test_what_btcli_is_asked_it_knows() -> None:
    """In the image of the gateway, whose name compose gives it, by the entry point."""
    (words,) = [words for words in of("docker", "run") if "btcli" in words]
    image = words.index(compose("gpu")["services"]["gateway"]["image"])
    asked = words[image + 1 :]
    options = [word for word in asked if word.startswith("--")]
    told = subprocess.run(
        [Path(sys.executable).with_name("btcli"), *asked[: asked.index(options[0])], "--help"],
        check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    for option in options:
        assert re.search(rf"{option}\b", told.stdout), option


def test_files_and_folders_exist() -> None:
    text = everything()
    folders = re.findall(r"^\| `([a-z_]+/)` \|", text, re.M)
    named = re.findall(r"`(deploy/[\w./-]+)`", text)
    copied = [f"deploy/{word}" for words in of("cp") for word in words if word.startswith(("../", ".env"))]
    assert folders and named and copied
    for path in {*folders, *named, *copied} - {"deploy/.env", "deploy/weights/"}:
        assert (PROJECT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if heading:
            anchors = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in _headings(file)}
            assert heading in anchors, f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (PROJECT / "README.md").read_text()))
    assert reached == {f"docs/{page.name}" for page in DOCS.glob("*.md")}


def _headings(file: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", file.read_text(), re.M)


def test_every_alert_is_listed() -> None:
    section = TROUBLE.read_text().split("## Alerts")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == {str(alert["alert"]) for alert in alerts()}
    assert {alert["annotations"]["page"] for alert in alerts()} == {"docs/trouble.md#alerts"}


def test_compose_means_the_gpu_variant() -> None:
    (name,) = re.findall(r"^COMPOSE_FILE=(.+)$", (DEPLOY / ".env.example").read_text(), re.M)
    assert compose(name.split(".")[1])["services"].keys() == compose("gpu")["services"].keys()


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_error_codes_are_those_of_the_gateway() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+) \|$", (DOCS / "errors.md").read_text(), re.M)
    documented_codes = [(int(status), code) for status, code, _ in rows]
    assert documented_codes == sorted(documented_codes)
    of_the_server = {(404, "not_found"), (405, "method_not_allowed")}
    assert set(documented_codes) == {(kind.status, kind.reason) for kind in every_kind(GatewayError)} | of_the_server
    assert [kind for kind in every_kind(GatewayError) if (kind.status in (503, 507)) != bool(kind.retry_after_s)] == []

"""The README says what is there: settings, commands, states, rooms, and files."""

import argparse
import re
import tomllib
from pathlib import Path

import pytest

from deploy.marked_text import MarkMissing, with_parts
from deploy.readme import README, parts
from dicom_node import cli
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import SettingReference, settings_reference
from dicom_node.settings_loading import load_settings

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
STATEMENT = (ROOT / "deploy" / "CONFORMANCE.md").read_text(encoding="utf-8")
DOCUMENTS = {"README": TEXT, "changes": CHANGES, "conformance statement": STATEMENT}
EXAMPLE = ROOT / "deploy" / "node.toml"


def section(title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no section {title}"
    return found[1]


def commands() -> set[str]:
    choices = (action.choices for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {name for names in choices for name in names}


def test_the_table_of_settings_is_the_settings_own() -> None:
    assert with_parts(TEXT, parts()) == TEXT, "run python -m deploy.readme"


@pytest.mark.parametrize("row", settings_reference(), ids=lambda row: f"{row.section}.{row.key}")
def test_every_setting_has_a_row_with_its_default(row: SettingReference) -> None:
    name = f"[[{row.section}]]" if row.section in ("peers", "routes", "bundles", "triage") else f"[{row.section}]"
    default = f"`{row.default}`" if row.default else "must be given"
    assert section("Settings").count(f"| `{name}` | `{row.key}` | {default} | {row.meaning} |") == 1


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL))
def test_every_example_of_settings_can_be_used(example: str, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(example, encoding="utf-8")
    load_settings(file, {})


def test_the_example_file_has_every_setting() -> None:
    written = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    keys = {
        (name, key)
        for name, value in written.items()
        for table in (value if isinstance(value, list) else [value])
        for key in table
    }
    assert keys == {(row.section, row.key) for row in settings_reference()}


def test_the_example_file_says_the_defaults() -> None:
    example, default = load_settings(EXAMPLE, {}), load_settings(None, {})
    names = ("node", "index", "broker", "web", "access", "admission", "completeness", "queue", "worker", "delivery")
    for name in (*names, "triage"):
        assert getattr(example, name) == getattr(default, name), f"[{name}] differs from the defaults"
    (route,), (built_in,) = example.routes, default.routes
    assert {**vars(route), "send_to": ()} == vars(built_in)
    assert [peer.name for peer in example.peers] == list(route.send_to)


def test_the_commands_are_those_of_the_program() -> None:
    rows = set(re.findall(r"^\| `dicom-node (\w+)", section("The command `dicom-node`"), flags=re.MULTILINE))
    assert rows == commands()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_names_a_command_that_is_not_there(name: str) -> None:
    named = set(re.findall(r"dicom-node ([a-z]+)\b", " ".join(re.findall(r"`(dicom-node [^`]+)`", DOCUMENTS[name]))))
    assert named <= commands()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_names_a_verb_that_make_does_not_know(name: str) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|    )make ([a-z]+)", DOCUMENTS[name]))
    assert named <= verbs
    assert name != "README" or {"demo", "test"} <= named


def test_the_states_are_those_of_the_lifecycle() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \|", section("The way of a study"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(StudyState)


@pytest.mark.parametrize("package", ["dicom_node", "workers", "deploy"])
def test_the_rooms_name_every_module(package: str) -> None:
    found = {path.stem for path in (ROOT / package).glob("[!_]*.py")}
    found |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    rooms = set(re.findall(r"[a-z_]+", section("Rooms, and which way imports run")))
    assert found - rooms == set()


@pytest.mark.parametrize("document", [README, ROOT / "deploy" / "CONFORMANCE.md"], ids=lambda path: path.name)
def test_every_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = target.partition("#")
        assert (document.parent / path).exists(), target
        assert not heading or heading in headings, target


def test_the_two_commands_stand_on_the_first_screen() -> None:
    first_screen = TEXT.splitlines()[:24]
    assert any("make demo" in line for line in first_screen)
    assert any("make test" in line for line in first_screen)


def test_a_document_without_the_marks_of_a_part_is_refused() -> None:
    with pytest.raises(MarkMissing, match="mark each part once"):
        with_parts("no marks", {"settings": "a table"})
    with pytest.raises(MarkMissing, match="has no end"):
        with_parts("<!-- generated: settings -->\n", {"settings": "a table"})


def test_a_part_replaces_whatever_stood_between_its_marks() -> None:
    text = "before\n<!-- generated: a -->\nold\n<!-- end: a -->\nafter\n"
    once = with_parts(text, {"a": "new"})
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert with_parts(once, {"a": "new"}) == once

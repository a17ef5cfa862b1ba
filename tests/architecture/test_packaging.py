"""What is declared agrees with what is there: versions, dependencies, the command."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dicom_node

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def declared(*lists):
    requirements = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(r.name): r for r in requirements if r.name != PROJECT["name"]}


def imported(package):
    """Names of outside packages that a package's modules import, anywhere in them."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"dicom_node", "workers", "training", "tests", "deploy"}


@pytest.mark.parametrize(
    ("package", "lists"),
    [
        ("dicom_node", [PROJECT["dependencies"], EXTRAS["oidc"], EXTRAS["otel"]]),
        ("workers", [PROJECT["dependencies"], EXTRAS["worker"]]),
        ("training", [PROJECT["dependencies"], EXTRAS["worker"], EXTRAS["train"]]),
        ("deploy", [PROJECT["dependencies"], EXTRAS["worker"], EXTRAS["train"]]),
        (
            "tests",
            [
                PROJECT["dependencies"],
                EXTRAS["worker"],
                EXTRAS["train"],
                EXTRAS["oidc"],
                EXTRAS["otel"],
                EXTRAS["test"],
            ],
        ),
    ],
)
def test_every_package_declares_what_it_imports(package, lists):
    distributions = packages_distributions()
    known = set(declared(*lists))
    # Several distributions may share a name: then one of them is what is imported.
    needed = [{canonicalize_name(name) for name in distributions[module]} for module in imported(package)]
    assert [names for names in needed if not names & known] == []


def test_every_declared_package_is_pinned_within_its_range():
    for name, requirement in declared(PROJECT["dependencies"], *EXTRAS.values()).items():
        assert name in PINS, f"{name} is in pyproject.toml but not in constraints.txt"
        assert requirement.specifier.contains(PINS[name]), f"{requirement} leaves out the pinned {PINS[name]}"


def test_a_pin_names_no_build_that_only_one_registry_has():
    assert all(re.fullmatch(r"[0-9a-z.]+", version) for version in PINS.values())


def test_the_version_is_said_once():
    assert PROJECT["version"] == dicom_node.__version__
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

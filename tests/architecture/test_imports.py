"""The house's import directions, kept by import-linter; the contracts are in .importlinter."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "dicom_node" / "core").glob("*.py"))


def test_every_import_runs_the_way_the_house_says():
    # In a process of its own: it sets up logging anew, which would silence every logger of the tests that follow.
    run = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    said = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == os.EX_OK, said.stdout + said.stderr


@pytest.mark.parametrize("module", CORE, ids=lambda path: path.stem)
def test_the_core_imports_only_the_standard_library_and_itself(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # dicom_node itself holds only the version.
    foreign = {n for n in names if n.split(".")[0] not in sys.stdlib_module_names and n != "dicom_node"}
    assert all(name.startswith("dicom_node.core") for name in foreign), foreign


@pytest.mark.parametrize("module", CORE, ids=lambda path: path.stem)
def test_the_core_reads_no_clock_no_file_and_no_socket(module):
    text = module.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & {"asyncio", "io", "os", "pathlib", "random", "socket", "subprocess", "threading", "time"}
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"open", "print", "input", "eval", "exec", "compile"}

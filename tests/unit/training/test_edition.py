"""An edition tells one version of the code that draws from another."""

import importlib.util
from pathlib import Path
from types import ModuleType

from training import phantom_backgrounds
from training.edition import edition
from training.evaluation import drawn_scans


def module(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    return importlib.util.module_from_spec(specification)


def test_other_sources_are_another_edition_and_the_same_ones_the_same(tmp_path: Path) -> None:
    first, again, other = (
        module(tmp_path / f"{name}.py", source) for name, source in (("a", "x = 1"), ("b", "x = 1"), ("c", "x = 2"))
    )
    assert edition((first,)) == edition((again,)) != edition((other,))
    assert edition((first, other)) != edition((other, first))


def test_what_is_edited_while_it_runs_is_still_drawn_as_it_began(tmp_path: Path) -> None:
    drawing = module(tmp_path / "drawing.py", "x = 1")
    before = edition((drawing,))
    (tmp_path / "drawing.py").write_text("x = 2")
    assert edition((drawing,)) == before


def test_an_edition_is_of_what_draws_and_of_what_finds_the_lungs() -> None:
    names = {each.__name__.rpartition(".")[2] for each in phantom_backgrounds.DRAWING}
    assert {"hila", "strokes", "preprocessing", "phantom_backgrounds", "skeleton"} <= names
    assert set(phantom_backgrounds.DRAWING) < set(drawn_scans.DRAWING)

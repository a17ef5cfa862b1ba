"""The study that a reading is measured on."""

from pathlib import Path
from typing import Any

import pytest

from deploy import bench_infer


def test_of_a_drawn_phantom_the_series_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(command: list[str], **_further: Any) -> None:
        folder = Path(command[command.index("training.phantoms") + 1])
        (folder / "series").mkdir()
        (folder / "series" / "0.dcm").touch()
        (folder / "truth.json").touch()

    monkeypatch.setattr("deploy.bench_infer.subprocess.run", drawn)
    assert [path.name for path in bench_infer._phantom(tmp_path).rglob("*")] == ["0.dcm"]

"""Readers are those of the bundles that lie on disk now: new ones come, changed ones are read anew, others go."""

import gc
import json
import logging
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicom_node.core.errors import BundleInvalid, OutOfDeviceMemory, TriageError
from tests.bundles import little_bundle, write_sums
from workers.algorithms import Prepared, Reading
from workers.bundles import Bundle
from workers.inference import Inference
from workers.readers import Readers
from workers.volume import Volume


class Algorithm:
    """One that the tests never let read."""

    name = "little"

    def __init__(self, bundle: Bundle, inference: Inference) -> None:
        self.inference = inference

    def reads(self, volume: Volume) -> None:
        raise NotImplementedError

    def prepare(self, volume: Volume) -> Prepared:
        raise NotImplementedError

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        raise NotImplementedError


class Room:
    """A folder of bundles, and the readers of them."""

    def __init__(self, folder: Path, algorithm: Callable[[Bundle, Inference], Any] = Algorithm) -> None:
        self.folder = folder
        self.beats: list[str] = []
        self.readers = Readers(
            {"little": algorithm, "other": algorithm},
            bundle_dirs=[folder],
            device="cpu",
            threads=0,
            beat=self.beats.append,
        )

    def replace(self, name: str = "little", *, seed: int, version: str) -> None:
        """Install another version as people do: beside the old one, then in its place."""
        new = little_bundle(self.folder.parent / f"{name} {version}", seed=seed)
        described(new, version=version)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        new.rename(self.folder / name)


def described(folder: Path, **changes: object) -> None:
    """Change a bundle's metadata, and its checksums with it."""
    path = folder / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_sums(folder)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    little_bundle(tmp_path / "bundles" / "little")
    return Room(tmp_path / "bundles")


def answer(room: Room) -> Any:
    reader: Any = room.readers.reader("little")
    where = np.ones((8, 16, 16), dtype=bool)
    return reader.algorithm.inference.probability(where.astype(np.float32), where)


def test_a_reader_is_kept_warm_from_one_reading_to_the_next(room: Room) -> None:
    first = room.readers.reader("little")
    assert room.readers.reader("little") is first
    assert room.readers.titles == ("little 0.0.1",)
    assert "loading bundle little" in room.beats
    assert "network" in room.beats, "it is warmed up"


def test_a_changed_bundle_is_read_by_the_next_and_the_old_one_leaves_the_memory(room: Room) -> None:
    before = answer(room)
    old = weakref.ref(room.readers.reader("little").algorithm)
    room.replace(seed=2, version="0.0.2")
    after = answer(room)
    assert room.readers.titles == ("little 0.0.2",)
    assert not np.allclose(before, after)
    gc.collect()
    assert old() is None


def test_a_bundle_that_was_only_touched_is_not_loaded_again(room: Room) -> None:
    first = room.readers.reader("little")
    write_sums(room.folder / "little")
    assert room.readers.reader("little") is first


def test_a_bundle_that_brought_no_checksums_is_watched_file_by_file(tmp_path: Path) -> None:
    little_bundle(tmp_path / "bundles" / "little")
    (tmp_path / "bundles" / "little" / "SHA256SUMS").unlink()
    room = Room(tmp_path / "bundles")
    room.readers.refresh()
    path = tmp_path / "bundles" / "little" / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.0.3"}))
    room.readers.refresh()
    assert room.readers.titles == ("little 0.0.3",)


def test_a_bundle_that_became_invalid_is_a_failure_by_name_until_it_is_mended(room: Room) -> None:
    room.readers.reader("little")
    weights = room.folder / "little" / "models" / "model.pt"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1])
    (room.folder / "little" / "SHA256SUMS").touch()
    for _ in range(2):
        with pytest.raises(BundleInvalid, match=r"models/model.pt was altered"):
            room.readers.reader("little")
    assert room.readers.titles == ()
    weights.write_bytes(good)
    (room.folder / "little" / "SHA256SUMS").touch()
    assert room.readers.reader("little").identification.version == "0.0.1"


def test_an_invalid_bundle_does_not_keep_another_from_reading(room: Room) -> None:
    other = little_bundle(room.folder / "other")
    (other / "SHA256SUMS").write_text("nonsense")
    room.readers.refresh()
    assert room.readers.titles == ("little 0.0.1",)
    with pytest.raises(BundleInvalid, match="other"):
        room.readers.reader("other")


def test_a_bundle_that_was_being_copied_is_used_once_it_is_whole_although_its_checksums_came_first(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = room.folder / "little" / "models" / "model.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    room.readers.refresh()
    room.readers.refresh()
    assert room.beats.count("loading bundle little") == 1, "not at every turn"
    assert (room.readers.algorithms, room.readers.broken) == ((), ("little",))
    monkeypatch.setattr("workers.readers._AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("workers.readers._AGAIN_TIMES", 0.0)
    shutil.rmtree(room.folder / "other", ignore_errors=True)
    room.readers._installed.clear()
    room.readers.refresh()
    room.readers.refresh()
    assert room.beats.count("loading bundle little") == 3
    assert caplog.messages.count("a bundle cannot be used") == 2, "once for each time that it was new"
    weights.write_bytes(whole)
    room.readers.refresh()
    assert (room.readers.algorithms, room.readers.broken) == (("little",), ())


def test_a_network_that_does_not_run_is_the_bundles_fault(room: Room) -> None:
    path = room.folder / "little" / "configs" / "inference.json"
    described_network = json.loads(path.read_text())
    described_network["inferer"]["roi_size"] = [3, 3, 3]
    path.write_text(json.dumps(described_network))
    write_sums(room.folder / "little")
    with pytest.raises(BundleInvalid, match="its network does not run"):
        room.readers.reader("little")


def test_a_device_that_fails_is_not_the_bundles_fault(tmp_path: Path) -> None:
    def broken(bundle: Bundle, inference: Inference) -> Any:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    little_bundle(tmp_path / "bundles" / "little")
    with pytest.raises(torch.AcceleratorError):
        Room(tmp_path / "bundles", broken).readers.refresh()


def test_a_lack_of_memory_while_a_bundle_is_loaded_may_pass(tmp_path: Path) -> None:
    attempts = []

    def sometimes(bundle: Bundle, inference: Inference) -> Any:
        attempts.append(bundle.name)
        if len(attempts) == 1:
            raise OutOfDeviceMemory("cuda has too little memory")
        return Algorithm(bundle, inference)

    little_bundle(tmp_path / "bundles" / "little")
    room = Room(tmp_path / "bundles", sometimes)
    room.readers.refresh()
    room.readers.refresh()
    assert len(attempts) == 1, "with nothing to do it is not tried again and again"
    assert room.readers.reader("little").identification.version == "0.0.1"


def test_a_new_bundle_is_picked_up_and_one_that_is_gone_is_forgotten(room: Room) -> None:
    room.readers.refresh()
    room.replace("other", seed=3, version="1.0.0")
    room.readers.refresh()
    assert sorted(room.readers.titles) == ["little 0.0.1", "other 1.0.0"]
    shutil.rmtree(room.folder / "little")
    with pytest.raises(TriageError, match=r"no algorithm little \(it has other\); correct the route or add its bundle"):
        room.readers.reader("little")


def test_a_bundle_that_fits_no_algorithm_is_told_once_and_left_alone(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    little_bundle(room.folder / "stranger")
    for _ in range(2):
        room.readers.refresh()
    told = [vars(record)["bundle"] for record in caplog.records if record.levelno == logging.WARNING]
    # The shipped ones are strangers to these tests, too.
    assert sorted(told) == ["chest_xray_pneumonia", "lung_nodule", "stranger"]

"""A bundle is used only while it is what it claims to be."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dicom_node.core.errors import BundleInvalid
from dicom_node.core.uid import is_uid
from tests.bundles import little_bundle, write_sums
from workers.bundles import (
    CONFIGURATION,
    METADATA,
    SHIPPED_BUNDLES,
    SUMS,
    WEIGHTS,
    find_bundles,
    identification,
    load_bundle,
)


def rewritten(folder: Path, relative: str, change: Callable[[dict[str, object]], object]) -> Path:
    """The bundle with one of its JSON files changed, and its checksums written anew."""
    content = json.loads((folder / relative).read_text())
    change(content)
    (folder / relative).write_text(json.dumps(content))
    write_sums(folder)
    return folder


def test_a_sound_bundle_builds_the_network_with_its_weights(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    bundle = load_bundle(folder)
    network = bundle.network()

    assert (bundle.name, bundle.version, bundle.verified) == ("lung_nodule", "0.0.1", True)
    assert not network.training
    weights = torch.load(folder / WEIGHTS, weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_the_inferer_is_the_one_that_the_bundle_describes(tmp_path: Path) -> None:
    inferer = load_bundle(little_bundle(tmp_path / "lung_nodule", roi_size=(16, 32, 32))).inferer()

    assert list(inferer.roi_size) == [16, 32, 32]


def test_numbers_come_from_the_bundle_and_a_missing_one_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(little_bundle(tmp_path / "lung_nodule"))

    assert bundle.number("postprocessing", "report_threshold") == 0.5
    with pytest.raises(BundleInvalid, match=r"postprocessing\.cheese"):
        bundle.number("postprocessing", "cheese")


@pytest.mark.parametrize("relative", [METADATA, CONFIGURATION, WEIGHTS])
def test_a_missing_file_is_named(tmp_path: Path, relative: str) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    (folder / relative).unlink()

    with pytest.raises(BundleInvalid, match=relative):
        load_bundle(folder)


@pytest.mark.parametrize("relative", [METADATA, CONFIGURATION, WEIGHTS])
def test_one_changed_byte_is_noticed(tmp_path: Path, relative: str) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    content = bytearray((folder / relative).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / relative).write_bytes(content)

    with pytest.raises(BundleInvalid, match=f"{relative} was altered"):
        load_bundle(folder)


def test_a_file_that_the_checksums_do_not_list_is_refused(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    (folder / "scripts.py").write_text("print()")

    with pytest.raises(BundleInvalid, match=r"scripts\.py is not in SHA256SUMS"):
        load_bundle(folder)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "configs/../../secret", ""])
def test_checksums_of_files_outside_the_bundle_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = little_bundle(tmp_path / "lung_nodule")
    with (folder / SUMS).open("a") as sums:
        sums.write(f"{hashlib.sha256(b'secret').hexdigest()}  {path}\n")

    with pytest.raises(BundleInvalid, match="unusable line"):
        load_bundle(folder)


def test_a_link_that_leads_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    (folder / WEIGHTS).rename(tmp_path / "elsewhere.pt")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere.pt")

    with pytest.raises(BundleInvalid, match="leads out of the bundle"):
        load_bundle(folder)


def test_a_foreign_bundle_without_checksums_is_read_and_says_so(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "foreign")
    known = load_bundle(folder).checksum
    (folder / SUMS).unlink()
    bundle = load_bundle(folder)

    assert not bundle.verified
    assert bundle.checksum == known


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    torch.save({"weight": torch.zeros(3)}, folder / WEIGHTS)
    write_sums(folder)

    with pytest.raises(BundleInvalid, match="does not fit network_def"):
        load_bundle(folder).network()


class Trap:
    """An object whose unpickling would write a file."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._target,)


def test_weights_that_are_a_program_are_refused_and_not_run(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    write_sums(folder)

    with pytest.raises(BundleInvalid, match=WEIGHTS):
        load_bundle(folder).network()
    assert not (tmp_path / "sprung").exists()


def test_a_description_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    (folder / METADATA).write_text("{")
    write_sums(folder)

    with pytest.raises(BundleInvalid, match="no JSON"):
        load_bundle(folder)


def test_a_description_without_a_version_is_refused(tmp_path: Path) -> None:
    folder = rewritten(little_bundle(tmp_path / "b"), METADATA, lambda metadata: metadata.pop("version"))

    with pytest.raises(BundleInvalid, match="version"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("needed", "words"), [({"monai": "99.0"}, "upgrade"), ({"no-such-package-here": "1.0"}, "install it")]
)
def test_a_package_that_is_too_old_or_missing_is_named(tmp_path: Path, needed: dict[str, str], words: str) -> None:
    folder = little_bundle(tmp_path / "b")
    rewritten(folder, METADATA, lambda metadata: metadata.update(required_packages_version=needed))

    with pytest.raises(BundleInvalid, match=words) as refused:
        load_bundle(folder)
    assert next(iter(needed)) in str(refused.value)


def test_a_network_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "b")
    rewritten(folder, CONFIGURATION, lambda content: content.update(network_def={"_target_": "NoSuchNetwork"}))

    with pytest.raises(BundleInvalid, match="network_def"):
        load_bundle(folder).network()


def test_the_same_bundle_is_named_alike_wherever_it_lies(tmp_path: Path) -> None:
    first = identification(load_bundle(little_bundle(tmp_path / "here" / "lung_nodule")))
    second = identification(load_bundle(little_bundle(tmp_path / "there" / "lung_nodule")))

    assert first == second
    assert is_uid(first.device_uid)
    assert (first.name, first.version, first.manufacturer) == ("Little network", "0.0.1", "the project")


def test_another_threshold_is_another_device(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    before = identification(load_bundle(folder)).device_uid
    rewritten(folder, CONFIGURATION, lambda content: content.update(postprocessing={"report_threshold": 0.6}))

    assert identification(load_bundle(folder)).device_uid != before


def test_a_site_bundle_stands_before_a_shipped_one_of_its_name(tmp_path: Path) -> None:
    mine = little_bundle(tmp_path / "lung_nodule")
    little_bundle(tmp_path / "another")
    (tmp_path / "no bundle").mkdir()
    found = find_bundles([tmp_path])

    assert mine in found
    assert [folder.name for folder in found].count("lung_nodule") == 1
    assert {folder.name for folder in find_bundles()} == {
        p.parents[1].name for p in SHIPPED_BUNDLES.glob(f"*/{METADATA}")
    }


def test_every_shipped_bundle_is_sound() -> None:
    for folder in find_bundles():
        bundle = load_bundle(folder)
        assert bundle.verified
        assert bundle.network() is not None

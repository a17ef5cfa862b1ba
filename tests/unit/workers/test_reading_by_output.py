"""Bundles without an algorithm of their own are read by what they give, all the way to objects that pass the gate."""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.unet import UNet
from pydicom import Dataset, dcmread
from torch import nn

from dicom_node.archive.files import Archive
from dicom_node.core.errors import BundleInvalid, NotApplicable
from dicom_node.core.form import Form
from dicom_node.core.priority import Priority
from dicom_node.core.urgency import TriageRule
from dicom_node.settings import BundleSettings
from tests.factories import HEADFIRST_SUPINE, OBLIQUE, Vector, ct_series
from tests.instances import data_set_of
from tests.unit.workers.test_radiograph import chest, radiograph
from tests.zoo_bundles import SPLEEN_CONFIGURATION, SPLEEN_METADATA, published, with_weights
from workers.bundles import WEIGHTS
from workers.pipe import Read, ReportObject, SeriesToRead, SourceFile
from workers.readers import Readers
from workers.reading import read

#: torch says that TorchScript will go some day.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

PRONE = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
SPLEEN = "spleen_ct_segmentation"
XRAY = "chest_xray_pneumonia"


def readers(*bundles: BundleSettings) -> Readers:
    return Readers({}, bundle_dirs=(), device="cpu", threads=0, beat=lambda _step: None, bundles=bundles)


def read_series(
    readers: Readers, algorithm: str, folder: Path, paths: list[Path], **asked: Any
) -> tuple[tuple[ReportObject, ...], dict[str, Any]]:
    """Read a series as a reading process does."""
    files = tuple(
        SourceFile(path=path.relative_to(folder).as_posix(), sha256=hashlib.sha256(data_set_of(path)).hexdigest())
        for path in paths
    )
    header = dcmread(paths[0], stop_before_pixels=True)
    series = SeriesToRead(
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        algorithm=algorithm,
        evidence="e" * 64,
        completed_at=1_709_201_700.0,
        files=files,
    )
    request = Read(job_uid="2.25.9", series=series, **asked)
    return read(request, readers.reader(algorithm), Archive(folder), lambda _step: None)


def written(objects: tuple[ReportObject, ...], form: Form) -> Dataset:
    (found,) = (kept for kept in objects if kept.form is form)
    return dcmread(BytesIO(found.data))


def texts_in(item: Dataset) -> list[str]:
    own = [str(item.TextValue)] if "TextValue" in item else []
    return own + [text for child in item.get("ContentSequence") or () for text in texts_in(child)]


class Bright(nn.Module):
    """Stands for a trained network: gives the class of what is bright, sharply."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - images, images - 0.5], dim=1) * 40


def spleen(folder: Path) -> BundleSettings:
    """The published segmentation bundle around a network of TorchScript that sees what is bright."""
    published(folder, SPLEEN_METADATA, SPLEEN_CONFIGURATION)
    torch.jit.trace(Bright(), torch.zeros(1, 1, 8, 8, 8)).save(folder / "models" / "model.ts")
    return BundleSettings(name=SPLEEN, folder=str(folder), torchscript=True)


@pytest.mark.parametrize("directions", [HEADFIRST_SUPINE, PRONE, OBLIQUE])
def test_a_segmenting_bundle_finds_its_organ_where_it_lies_in_the_patient(
    tmp_path: Path, directions: tuple[Vector, Vector]
) -> None:
    voxels = np.full((20, 40, 44), -57.0)
    voxels[7:14, 10:22, 20:36] = 200.0
    spacing = (3.0, 1.4, 1.2)
    paths = ct_series(tmp_path / "series", voxels=voxels, spacing=spacing, directions=directions)
    objects, summary = read_series(readers(spleen(tmp_path / SPLEEN)), SPLEEN, tmp_path, paths)

    (row,) = summary["rows"]
    first = dcmread(paths[0], stop_before_pixels=True)
    row_axis, column_axis = (np.array(first.ImageOrientationPatient[part], float) for part in (slice(3), slice(3, 6)))
    centre = (
        np.array(first.ImagePositionPatient, float)
        + 27.5 * spacing[2] * row_axis
        + 15.5 * spacing[1] * column_axis
        + 10.0 * spacing[0] * np.cross(row_axis, column_axis)
    )
    assert np.linalg.norm(np.array(row["centre_mm"]) - centre) < 1.0
    assert row["finding"] == "Spleen"
    assert row["volume_mm3"] == pytest.approx(7 * 12 * 16 * np.prod(spacing), rel=0.15)
    assert not any(kept.held for kept in objects)
    segmentation = written(objects, Form.SEG)
    assert segmentation.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Spleen"
    said = " ".join(texts_in(written(objects, Form.SR)))
    assert "not to be used for diagnostic purposes" in said
    assert "does not say on what series it was trained" in said
    # A normal organ is no reason to look soon.
    assert summary["priority"] == ""
    assert "to be seen within" not in said


def test_a_segmenting_bundles_own_weights_are_loaded(tmp_path: Path) -> None:
    """With random weights nothing sensible is found, but the published network takes them and runs."""
    bundle = with_weights(published(tmp_path / SPLEEN, SPLEEN_METADATA, SPLEEN_CONFIGURATION))
    reader = readers(BundleSettings(name=SPLEEN, folder=str(bundle.folder))).reader(SPLEEN)

    assert isinstance(bundle.network(), UNet)
    assert reader.identification.version == "0.5.7"


def xray(folder: Path, logit: float, **metadata: Any) -> BundleSettings:
    """A bundle of radiographs as the training writes it, whose network says the same of every picture."""
    described = {
        "version": "0.1.0",
        "monai_version": "1.6.0",
        "pytorch_version": "2.10.0",
        "numpy_version": "2.0.0",
        "name": XRAY,
        "authors": "the project",
        "intended_use": "research only, not for diagnostic use: it sees 28 x 28 pixels",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "modality": "CR", "num_channels": 1, "spatial_shape": [28, 28]}},
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "logits",
                    "num_channels": 1,
                    "spatial_shape": [1],
                    "channel_def": {"0": "pneumonia"},
                }
            },
        },
        **metadata,
    }
    configured = {
        "network_def": {
            "_target_": "DenseNet",
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "init_features": 4,
            "growth_rate": 2,
            "block_config": [1, 1],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "preprocessing": {"size": [28, 28], "crop": "the middle square of the shorter side"},
        "postprocessing": {"activation": "sigmoid", "report_threshold": 0.6},
    }

    def told(network: nn.Module) -> None:
        network.class_layers.out.weight.zero_()
        network.class_layers.out.bias.fill_(logit)

    settings = BundleSettings(name=XRAY, folder=str(published(folder, described, configured)))
    with_weights(folder, settings, told)
    return settings


@pytest.mark.parametrize(("logit", "summary_code"), [(2.0, "111242"), (-2.0, "111241")])
def test_a_radiograph_gets_a_report_that_says_what_was_estimated_and_that_it_is_research(
    tmp_path: Path, logit: float, summary_code: str
) -> None:
    paths = radiograph(tmp_path / "series", np.round(chest() * 4000))
    objects, summary = read_series(readers(xray(tmp_path / XRAY, logit)), XRAY, tmp_path, paths)

    assert [(kept.form, kept.held) for kept in objects] == [(Form.SR, "")]
    report = written(objects, Form.SR)
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == paths[0].stem
    probability = 1 / (1 + np.exp(-logit))
    said = " ".join(texts_in(report))
    assert f"Pneumonia: estimate {probability:.2f} of 0 to 1, research only" in said
    assert "Research only: the algorithm sees 28 x 28 pixels." in said
    assert summary["result"].startswith(f"Pneumonia: estimate {probability:.2f}")
    assert summary_code in report.to_json()
    assert "Plain chest X-ray" in report.to_json()
    assert "CT Chest" not in report.to_json()


def test_what_is_said_of_a_radiograph_is_calibrated_as_the_bundle_says(tmp_path: Path) -> None:
    paths = radiograph(tmp_path / "series", np.round(chest() * 4000))
    ways = {
        "temperature": {"method": "temperature", "temperature": 2.0},
        "isotonic": {"method": "isotonic", "x": [0.0, 1.0], "y": [0.1, 0.3]},
    }
    said = {}
    for name, calibration in ways.items():
        settings = xray(tmp_path / name / XRAY, 2.0, calibration=calibration)
        said[name] = read_series(readers(settings), XRAY, tmp_path, paths)[1]["result"]

    assert "estimate 0.73" in said["temperature"]
    assert "estimate 0.28" in said["isotonic"]


def test_a_ct_is_no_radiograph(tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "series", slices=1)

    with pytest.raises(NotApplicable, match="modality CT"):
        read_series(readers(xray(tmp_path / XRAY, 0.0)), XRAY, tmp_path, paths)


def test_caveats_and_urgency_stand_in_the_report_and_in_what_status_shows(tmp_path: Path) -> None:
    voxels = np.full((20, 40, 44), -57.0)
    voxels[7:14, 10:22, 20:36] = 200.0
    paths = ct_series(tmp_path / "series", voxels=voxels, spacing=(3.0, 1.4, 1.2))
    settings = spleen(tmp_path / SPLEEN)
    metadata = tmp_path / SPLEEN / "configs" / "metadata.json"
    metadata.write_text(
        json.dumps(json.loads(metadata.read_text()) | {"trained_on": {"slice_thickness_mm": [0.5, 2.5]}})
    )
    rule = TriageRule(name="a spleen is always urgent here", priority=Priority.STAT, algorithm=SPLEEN)
    objects, summary = read_series(readers(settings), SPLEEN, tmp_path, paths, triage=(rule,))
    report = written(objects, Form.SR)
    said = " ".join(texts_in(report))

    assert [caveat["code"] for caveat in summary["caveats"]] == ["SLICE_THICKNESS"]
    assert "Caution: slices are 3 mm thick, and the algorithm was trained on 0.5 to 2.5 mm (SLICE_THICKNESS)." in said
    assert "a spleen is always urgent here; to be seen within minutes" in said
    assert summary["priority"] == "ACR Category 1 Actionable Finding"
    assert "RID13" in report.to_json()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda metadata, _: metadata.pop("network_data_format"), "network_data_format"),
        (lambda metadata, _: metadata["network_data_format"]["outputs"].clear(), "describes 0 outputs"),
        (
            lambda metadata, _: metadata["network_data_format"]["outputs"]["pred"].update(
                format="hologram", type="new"
            ),
            "known are",
        ),
        (lambda _, configured: configured.pop("network_def"), "has no network_def"),
        (lambda _, configured: configured.pop("inferer"), "has no inferer"),
        (lambda _, configured: configured.pop("preprocessing"), "preprocessing::transforms"),
        (
            lambda metadata, _: (
                metadata["network_data_format"]["outputs"]["pred"].update(
                    channel_def={"0": "background", "1": "gizzard"}
                )
                or metadata.update(task="", name="", description="")
            ),
            "finding_codes",
        ),
    ],
)
def test_what_a_bundle_lacks_is_named(tmp_path: Path, change: Any, reason: str) -> None:
    published(tmp_path / SPLEEN, SPLEEN_METADATA, SPLEEN_CONFIGURATION, change)
    torch.save(UNet(**_unet()).state_dict(), tmp_path / SPLEEN / WEIGHTS)

    with pytest.raises(BundleInvalid, match=reason):
        readers(BundleSettings(name=SPLEEN, folder=str(tmp_path / SPLEEN))).reader(SPLEEN)


def test_codes_that_the_bundle_states_are_used(tmp_path: Path) -> None:
    codes = {"gizzard": {part: ["1", "99X", "Gizzard"] for part in ("concept", "category", "site")}}
    published(
        tmp_path / SPLEEN,
        SPLEEN_METADATA,
        SPLEEN_CONFIGURATION,
        lambda metadata, _: (
            metadata["network_data_format"]["outputs"]["pred"].update(channel_def={"0": "", "1": "gizzard"})
            or metadata.update(finding_codes=codes)
        ),
    )
    torch.save(UNet(**_unet()).state_dict(), tmp_path / SPLEEN / WEIGHTS)
    reader = readers(BundleSettings(name=SPLEEN, folder=str(tmp_path / SPLEEN))).reader(SPLEEN)

    assert reader.identification.name == "Spleen CT segmentation"


def _unet() -> dict[str, Any]:
    return {key: value for key, value in SPLEEN_CONFIGURATION["network_def"].items() if key != "_target_"}


def test_weights_that_were_never_fetched_and_programs_that_nobody_allowed_are_named(tmp_path: Path) -> None:
    settings = spleen(tmp_path / SPLEEN)
    unread = BundleSettings(name=SPLEEN, folder=settings.folder)

    with pytest.raises(BundleInvalid, match="torchscript = true"):
        readers(unread).reader(SPLEEN)
    (tmp_path / SPLEEN / "models" / "model.ts").unlink()
    with pytest.raises(BundleInvalid, match=r"large_files\.yml"):
        readers(unread).reader(SPLEEN)

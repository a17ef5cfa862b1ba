"""A bundle of the Model Zoo, as it is published, reads a series: its boxes lie where they lie in the patient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.apps.detection.transforms.dictionary import AffineBoxToWorldCoordinated
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from dicom_node.core.codes import LUNG, NODULE
from dicom_node.core.errors import BundleInvalid
from dicom_node.settings import BundleSettings
from tests.factories import HEADFIRST_SUPINE, OBLIQUE, Vector, ct_series
from tests.zoo_bundles import NODULE_CONFIGURATION, NODULE_METADATA, published, sees_bright, with_weights
from workers.algorithms.detection import Box, Detection, ellipsoid
from workers.bundles import WEIGHTS, Bundle, load_bundle
from workers.network_image import Preparation
from workers.volume import Volume, load_volume

NAME = "lung_nodule_ct_detection"
PRONE = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
FEET_FIRST = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SPACING = (1.5, 0.9, 0.8)
SHAPE = (28, 44, 48)
#: Where the bright cube lies (k, j, i), and half its side in mm.
BRIGHT, HALF_MM = (17, 15, 31), 3.0


def lit() -> NDArray[np.float64]:
    """Lung with one bright cube."""
    away = [np.abs(axis - centre) * mm for axis, centre, mm in zip(np.indices(SHAPE), BRIGHT, SPACING, strict=True)]
    return np.where(np.max(away, axis=0) <= HALF_MM, 300.0, -850.0)


def series(folder: Path, directions: tuple[Vector, Vector] = HEADFIRST_SUPINE) -> Volume:
    return load_volume(ct_series(folder, voxels=lit(), spacing=SPACING, directions=directions))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = published(tmp_path_factory.mktemp("zoo") / NAME, NODULE_METADATA, NODULE_CONFIGURATION)
    return with_weights(folder, BundleSettings(name=NAME, report_threshold=0.5), sees_bright)


@pytest.fixture(scope="module")
def detection(bundle: Bundle) -> Detection:
    return Detection(bundle, "cpu", threads=0, beat=lambda _step: None)


@pytest.fixture(scope="module")
def preparation(bundle: Bundle) -> Preparation:
    return Preparation(bundle, bundle.parts())


@pytest.mark.parametrize("directions", [HEADFIRST_SUPINE, FEET_FIRST, OBLIQUE])
def test_what_the_published_detector_sees_is_reported_where_it_lies_in_the_patient(
    detection: Detection, tmp_path: Path, directions: tuple[Vector, Vector]
) -> None:
    volume = series(tmp_path, directions)
    reading = detection.read(volume)

    finding = reading.findings[0]
    k, j, i = BRIGHT
    # The detector's own grid of features is 2.8 mm wide.
    assert np.linalg.norm(np.subtract(finding.centre, volume.to_patient(i, j, k))) <= 3.0
    assert (finding.concept, finding.site) == (NODULE, LUNG)
    assert (reading.labels == 1).sum() * np.prod(SPACING) == pytest.approx(finding.volume_mm3)


def test_weights_bear_the_names_of_the_published_ones(bundle: Bundle) -> None:
    names = set(bundle.network().state_dict())

    assert {
        "feature_extractor.body.conv1.weight",
        "feature_extractor.body.bn1.running_mean",
        "feature_extractor.body.layer1.0.downsample.0.weight",
        "feature_extractor.body.layer2.3.bn3.weight",
        "feature_extractor.fpn.inner_blocks.0.weight",
        "feature_extractor.fpn.layer_blocks.1.bias",
        "classification_head.conv.0.weight",
        "classification_head.cls_logits.bias",
        "regression_head.bbox_reg.weight",
    } <= names
    # The pyramid stands on two layers: the others are no part of it.
    assert not {name for name in names if ".layer3." in name or ".fc." in name}


@pytest.mark.parametrize("directions", [HEADFIRST_SUPINE, PRONE, FEET_FIRST, CORONAL, OBLIQUE])
def test_a_box_on_the_networks_grid_is_where_monai_says_it_is(
    preparation: Preparation, tmp_path: Path, directions: tuple[Vector, Vector]
) -> None:
    """The bundle's own steps after the network give a box's centre in LPS mm: ours is the same, in any orientation."""
    volume = series(tmp_path, directions)
    image = preparation(volume)
    to_ras = MetaTensor(
        np.zeros((1, 2, 2, 2), dtype=np.float32),
        affine=np.diag((-1.0, -1.0, 1.0, 1.0)) @ volume.affine @ image.to_series,
    )
    published_step = AffineBoxToWorldCoordinated(box_keys="box", box_ref_image_keys="image", affine_lps_to_ras=True)
    chance = np.random.default_rng(11)
    for place in chance.uniform(8.0, np.array(image.voxels.shape[1:]) - 9.0, size=(20, 3)):
        half = chance.uniform(1.5, 4.0, size=3)
        corners = np.concatenate([place - half, place + half])[None]
        world = published_step({"box": corners, "image": to_ras})["box"][0]
        i, j, k = (image.to_series @ (*place, 1.0))[:3]
        assert np.allclose(volume.to_patient(i, j, k), (world[:3] + world[3:]) / 2, atol=1e-3)

        box = Box(centre=tuple(place), size=tuple(2 * half), score=1.0, label=0)
        region = ellipsoid(box, image.to_series, volume.voxels.shape)
        inside = np.argwhere(region.mask) + [part.start for part in region.box]
        # Whole voxels: their middle is within one of the box's own.
        assert np.abs(inside.mean(axis=0) - (k, j, i)).max() <= 1.0


def test_the_network_sees_every_series_at_the_spacing_that_it_was_trained_on(
    preparation: Preparation, tmp_path: Path
) -> None:
    """The published switch says that images come resampled already, which is true of no series from a scanner."""
    image = preparation(series(tmp_path))

    assert np.linalg.norm(image.to_series[:3, :3], axis=0) * SPACING[::-1] == pytest.approx([0.703125, 0.703125, 1.25])
    assert (image.voxels.min(), image.voxels.max()) == (pytest.approx(174 / 1324), pytest.approx(1.0))


def said_of(detection: Detection) -> dict[str, object]:
    """What a detector does, by the key of the configuration that says it."""
    detector = detection._detector
    selector, inferer, cells = detector.box_selector, detector.inferer, detector.anchor_generator.cell_anchors
    return {
        "score": selector.score_thresh,
        "topk": selector.topk_candidates_per_level,
        "nms": selector.nms_thresh,
        "most": selector.detections_per_img,
        "roi_size": tuple(inferer.roi_size),
        "overlap": inferer.overlap,
        "mode": str(inferer.mode),
        "windows at a time": inferer.sw_batch_size,
        "stitched on": str(inferer.device),
        "box coder": tuple(float(weight) for weight in detector.box_coder.weights),
        "anchors": tuple(tuple((anchor[3:] - anchor[:3]).tolist()) for anchor in torch.cat(cells)),
        "size_divisible": tuple(detector.size_divisible),
        "classes": detector.num_classes,
        "keys": (detector.target_box_key, detector.target_label_key),
        "always in windows": detection._always_in_windows,
    }


def anchors(scales: tuple[int, ...], *shapes: tuple[int, int, int]) -> tuple[tuple[float, ...], ...]:
    """Sides of all anchors, the finest level first: MONAI rounds half of each."""
    return tuple(tuple(2.0 * round(side * scale / 2) for side in shape) for scale in scales for shape in shapes)


PUBLISHED = {
    "score": 0.02,
    "topk": 1000,
    "nms": 0.22,
    "most": 300,
    "roi_size": (512, 512, 192),
    "overlap": 0.25,
    "mode": "constant",
    "windows at a time": 1,
    "stitched on": "cpu",
    "box coder": (1.0,) * 6,
    "anchors": anchors((1, 2, 4), (6, 8, 4), (8, 6, 5), (10, 10, 6)),
    "size_divisible": (16, 16, 8),
    "classes": 1,
    "keys": ("box", "label"),
    "always in windows": False,
}
CHANGED = {
    "score": 0.07,
    "topk": 500,
    "nms": 0.4,
    "most": 20,
    "roi_size": (64, 64, 32),
    "overlap": 0.5,
    "mode": "gaussian",
    "windows at a time": 2,
    "stitched on": "cpu",
    "box coder": (1.0, 1.0, 1.0, 2.0, 2.0, 2.0),
    "anchors": anchors((1, 2, 8), (5, 8, 4), (8, 5, 5), (12, 10, 6)),
    "size_divisible": (32, 32, 16),
    "classes": 1,
    "keys": ("boxes", "labels"),
    "always in windows": True,
}


def otherwise(_metadata: dict[str, Any], configured: dict[str, Any]) -> None:
    """Every key that matters says something else."""
    configured["force_sliding_window"] = True
    configured["size_divisible"] = [32, 32, 16]
    configured["infer_patch_size"] = [64, 64, 32]
    configured["anchor_generator"] |= {
        "feature_map_scales": [1, 2, 8],
        "base_anchor_shapes": [[5, 8, 4], [8, 5, 5], [12, 10, 6]],
    }
    configured["detector_ops"] = [
        "$@detector.set_target_keys(box_key='boxes', label_key='labels')",
        "$@detector.set_box_coder_weights(weights=[1.0,1.0,1.0,2.0,2.0,2.0])",
        "$@detector.set_box_selector_parameters"
        "(score_thresh=0.07,topk_candidates_per_level=500,nms_thresh=0.4,detections_per_img=20)",
        "$@detector.set_sliding_window_inferer"
        "(roi_size=@infer_patch_size,overlap=0.5,sw_batch_size=2,mode='gaussian',device='cpu')",
    ]


def test_the_detector_does_what_the_published_configuration_says(detection: Detection) -> None:
    assert said_of(detection) == PUBLISHED


def test_the_detector_does_otherwise_where_the_configuration_says_otherwise(tmp_path: Path) -> None:
    folder = published(tmp_path / NAME, NODULE_METADATA, NODULE_CONFIGURATION, otherwise)
    changed = Detection(with_weights(folder), "cpu", threads=0, beat=lambda _step: None)
    assert said_of(changed) == CHANGED


def test_a_bundle_that_switches_spacing_off_is_refused(tmp_path: Path) -> None:
    folder = published(
        tmp_path / NAME,
        NODULE_METADATA,
        NODULE_CONFIGURATION,
        lambda _metadata, configured: configured["preprocessing"]["transforms"][4].update({"_disabled_": True}),
    )
    (folder / WEIGHTS).touch()
    bundle = load_bundle(folder)

    with pytest.raises(BundleInvalid, match="Spacing is switched off"):
        Preparation(bundle, bundle.parts())


def test_a_label_that_the_bundle_does_not_describe_is_nobody_elses(detection: Detection) -> None:
    described = len(detection._meanings)
    with pytest.raises(BundleInvalid, match=f"label {described}"):
        detection._meaning(described)

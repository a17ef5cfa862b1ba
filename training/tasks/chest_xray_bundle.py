"""The bundle of the reader of chest radiographs: its configuration, its metadata and its card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from training import networks
from training.bundle import SCHEMA, installed, write
from training.experiment import EXPERIMENTS, Experiment
from training.metrics.bootstrap import Estimate
from training.shifted_radiographs import SHIFTS
from training.tasks.chest_xray_report import PUBLISHED_ACCURACY, Judgement
from workers.calibration import Calibration

_SIDE = 28
_CHANGES = {"0.2.0": "three networks that vote, of standardised pictures; threshold and calibration by shifted images"}
_LICENCE = "see docs/README.md: trained on data under CC BY 4.0"


def inference(experiment: Experiment, judged: Judgement) -> dict[str, Any]:
    """configs/inference.json: how to build and run the network, and what to do before and after."""
    return {
        "imports": [],
        "network_def": dict(experiment.network),
        "inferer": {"_target_": "SimpleInferer"},
        "preprocessing": {
            "photometric_interpretation": "MONOCHROME2",
            "crop": "the middle square of the shorter side",
            "size": [_SIDE, _SIDE],
            "interpolation": "bicubic, anti-aliased",
            "value_range": [0.0, 1.0],
        },
        "postprocessing": {
            "activation": "sigmoid",
            "calibration": "calibration in metadata.json",
            "report_threshold": judged.threshold,
        },
    }


def metadata(experiment: Experiment, calibration: Calibration, network_data: Mapping[str, str]) -> dict[str, Any]:
    """configs/metadata.json: what the bundle is, of which version, for which use, made with what."""
    return {
        "schema": SCHEMA,
        "version": experiment.bundle["version"],
        "changelog": {"0.1.0": "first version", **_CHANGES},
        "monai_version": installed("monai"),
        "pytorch_version": installed("torch"),
        "numpy_version": installed("numpy"),
        "required_packages_version": {},
        "name": experiment.name,
        "task": "pneumonia or not on frontal chest radiographs",
        "description": "Probability of pneumonia on a chest radiograph reduced to 28 x 28 pixels.",
        "authors": "dicom-node",
        "copyright": _LICENCE,
        "license": _LICENCE,
        "intended_use": "research only, not for diagnostic use: it sees 28 x 28 pixels",
        "data_source": network_data["data"],
        "data_type": "radiographs, 28 x 28, 8 bit",
        "image_classes": "one channel, 0..1, air dark",
        "pred_classes": "one channel, the logit of pneumonia",
        "calibration": calibration.as_json(),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "CR",
                    "num_channels": 1,
                    "spatial_shape": [_SIDE, _SIDE],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {"0": "radiograph"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "logits",
                    "num_channels": 1,
                    "spatial_shape": [1],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {"0": "pneumonia"},
                }
            },
        },
    }


def export(
    experiment: Experiment,
    network: nn.Module,
    calibration: Calibration,
    judged: Judgement,
    facts: Mapping[str, str],
    seconds: float,
    step: int,
    bundle: Path,
) -> None:
    """Write the bundle with the card that was filled in."""
    card = (EXPERIMENTS / "chest_xray_pneumonia.md").read_text()
    documents = {
        "configs/inference.json": json.dumps(inference(experiment, judged), indent=2) + "\n",
        "configs/metadata.json": json.dumps(metadata(experiment, calibration, facts), indent=2) + "\n",
        "docs/README.md": card.format(
            version=experiment.bundle["version"],
            parameters=f"{networks.parameters(network):,}",
            step=step,
            steps=f"{step} of {experiment.training['steps']}",
            batch=experiment.data["batch"],
            minutes=f"{seconds / 60:.0f}",
            threads=experiment.training["threads"],
            threshold=f"{judged.threshold:.4f}",
            calibration=_calibration(calibration),
            members=experiment.network.get("count", 1),
            shifts_but_one=len(SHIFTS) - 1,
            figures=_table("test images", judged.figures),
            shifted=_table("validation images under shifts", judged.shifted_figures),
            validation=_table("validation images as they are", judged.validation_figures),
            published=", ".join(f"{name} {value:.3f}" for name, value in PUBLISHED_ACCURACY.items()),
            **{key.replace(" ", "_"): said for key, said in facts.items()},
        ),
    }
    write(bundle, network, documents)


def _calibration(calibration: Calibration) -> str:
    said = ", ".join(f"{name} {value:.3f}" for name, value in calibration.likelihoods.items())
    shift = f", shift {calibration.shift:.2f}" if calibration.method == "platt" else ""
    how = f"{calibration.method}, temperature {calibration.temperature:.2f}{shift}"
    return f"{how}; negative log-likelihood on held-out folds: {said}"


def _table(images: str, figures: Mapping[str, Estimate]) -> str:
    rows = [f"| {name} | {e.value:.3f} | {e.low:.3f} to {e.high:.3f} |" for name, e in figures.items()]
    return "\n".join([f"| {images} | value | 95 % interval |", "|---|---|---|", *rows])

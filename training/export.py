"""Write a bundle from a checkpoint: `python -m training.export EXPERIMENT.toml [--run DIR] [--bundle DIR]`.

The layout is that of the MONAI bundle specification: configs/{metadata,inference}.json, models/model.pt,
docs/README.md; with the checksums of all files in SHA256SUMS. The report threshold is found here, on the held-out
slabs alone.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets.unet import UNet

from training.evaluate import BUNDLE, Evaluation, evaluate
from training.shapes import Shape
from training.train import (
    CACHE,
    DATA,
    EXPERIMENTS,
    Experiment,
    build_network,
    load_data,
    probabilities,
    read_experiment,
)
from workers.preprocessing import GRID_MM, HU_WINDOW

_SCHEMAS = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1"
LICENCES = "see docs/README.md: trained on data under CC BY 3.0 and MIT"


def inference(experiment: Experiment, report_threshold: float) -> dict[str, Any]:
    """configs/inference.json: how to build and run the network, and what to do before and after."""
    return {
        "imports": [],
        "network_def": {"_target_": "UNet", **experiment.network},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": experiment.bundle["roi_size"],
            "sw_batch_size": 1,
            "overlap": experiment.bundle["overlap"],
            "mode": "gaussian",
        },
        "preprocessing": {"grid_mm": list(GRID_MM), "hu_window": list(HU_WINDOW)},
        "postprocessing": {
            "activation": "sigmoid",
            "candidate_threshold": experiment.bundle["candidate_threshold"],
            "report_threshold": report_threshold,
        },
    }


def metadata(experiment: Experiment) -> dict[str, Any]:
    """configs/metadata.json: what the bundle is, of which version, for which use, made with what."""
    step = 2 ** len(experiment.network["strides"])
    return {
        "schema": f"{_SCHEMAS}/meta_schema_20240725.json",
        "version": experiment.bundle["version"],
        "changelog": {experiment.bundle["version"]: "first version, semi-synthetic training data"},
        "monai_version": _installed("monai"),
        "pytorch_version": _installed("torch"),
        "numpy_version": _installed("numpy"),
        "required_packages_version": {"scipy": _installed("scipy")},
        "name": experiment.name,
        "task": "lung nodule detection on chest CT",
        "description": "Voxel-wise probability of lung nodules on chest CT; trained on semi-synthetic data.",
        "authors": "dicom-node",
        "copyright": LICENCES,
        "license": LICENCES,
        "intended_use": "research, not for diagnostic use",
        "data_source": "shapes of LIDC-IDRI drawn into lungs of NSCLC Radiogenomics R01-001 and 4D-Lung 113_HM10395",
        "data_type": "semi-synthetic CT",
        "image_classes": "one channel, HU clipped to -1000..300 and mapped to 0..1, grid of 1.5 x 1 x 1 mm",
        "pred_classes": "one channel, the logit of lung nodule",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": 1,
                    "spatial_shape": [f"{step}*n"] * 3,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": {"0": "CT"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "logits",
                    "num_channels": 1,
                    "spatial_shape": [f"{step}*n"] * 3,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {"0": "lung nodule"},
                }
            },
        },
    }


def _installed(package: str) -> str:
    return version(package).partition("+")[0]


def card(
    experiment: Experiment, network: UNet, steps: int, shapes: Sequence[Shape], result: Evaluation, threshold: float
) -> str:
    """docs/README.md from the experiment's card, with the figures of an evaluation."""
    template = (EXPERIMENTS / f"{experiment.name}.md").read_text()
    held_out = sum(shape.held_out for shape in shapes)
    return template.format(
        version=experiment.bundle["version"],
        parameters=f"{sum(p.numel() for p in network.parameters()):,}",
        shapes=len(shapes),
        training_shapes=len(shapes) - held_out,
        held_out_shapes=held_out,
        steps=steps,
        batch=experiment.data["batch"],
        figures=figures(result, threshold, float(experiment.bundle["false_positives_wanted"])),
    )


def figures(result: Evaluation, threshold: float, wanted: float) -> str:
    """The measured figures as Markdown, each with its n."""
    summary = result.summary(threshold)
    found, inserted = summary["found_at_report_threshold"]
    lines = [
        f"Semi-synthetic validation, n = {inserted} inserted nodules in {summary['judged_lung_litres']} litres of lung",
        "(a scan is counted as 4 litres), all of it renderings of the same held-out slabs of two patients.",
        f"Report threshold {threshold:.2f}: the lowest with at most {wanted:g} false positives a scan there.",
        f"At it {found} of {inserted} nodules are found ({found / max(inserted, 1):.0%}) with "
        f"{summary['false_positives_a_scan']:.1f} false positives a scan.",
        "",
        "| false positives a scan, at most | found |",
        "|---|---|",
        *(f"| {rate:g} | {n} of {of} ({n / max(of, 1):.0%}) |" for rate, (n, of) in summary["froc"].items()),
        "",
        "| at the report threshold | found |",
        "|---|---|",
        *(f"| {name} | {n} of {of} ({n / of:.0%}) |" for name, (n, of) in summary["groups"].items() if of),
    ]
    return "\n".join(lines)


def export(experiment: Experiment, checkpoint: Path, bundle: Path, data: Path, scans: int) -> float:
    """Evaluate the averaged weights of a checkpoint and write them as a bundle; the report threshold."""
    network = build_network(experiment)
    state = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["averaged"])
    settings = experiment.bundle
    backgrounds, shapes = load_data(experiment, data)
    result = evaluate(
        lambda values: probabilities(network, values, settings["roi_size"], settings["overlap"]),
        backgrounds,
        shapes,
        scans=scans,
        seed=experiment.seed,
        lowest=settings["candidate_threshold"],
    )
    threshold = result.threshold(settings["false_positives_wanted"], lowest=settings["candidate_threshold"])
    documents = {
        "configs/inference.json": json.dumps(inference(experiment, threshold), indent=2) + "\n",
        "configs/metadata.json": json.dumps(metadata(experiment), indent=2) + "\n",
        "docs/README.md": card(experiment, network, state["step"], shapes, result, threshold),
    }
    write(bundle, network, documents)
    return threshold


def write(bundle: Path, network: UNet, documents: dict[str, str]) -> None:
    """The files of a bundle, and their checksums in the format of sha256sum."""
    for name, text in documents.items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text(text)
    weights = bundle / "models" / "model.pt"
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: value.contiguous().clone() for name, value in network.state_dict().items()}, weights)
    names = sorted([*documents, "models/model.pt"])
    sums = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / "SHA256SUMS").write_text("".join(sums))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--run", type=Path, help="folder of the checkpoint")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds lung-backgrounds/")
    parser.add_argument("--scans", type=int, default=8, help="validation scans drawn a background")
    chosen = parser.parse_args(arguments)
    experiment = read_experiment(chosen.experiment)
    run = chosen.run or CACHE / "runs" / experiment.name
    threshold = export(experiment, run / "checkpoint.pt", chosen.bundle, chosen.data, chosen.scans)
    print(f"{chosen.bundle}: report threshold {threshold:.2f}")


if __name__ == "__main__":
    main()

"""Write a bundle from a checkpoint: `python -m training.export EXPERIMENT.toml [--run DIR] [--bundle DIR]`.

The layout is that of the MONAI bundle specification: configs/{metadata,inference}.json, models/model.pt,
docs/README.md; with the checksums of all files in SHA256SUMS. The report threshold is found here, on the held-out
slabs alone.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training import networks
from training.bundle import SCHEMA, installed, write
from training.dataset import Background, load_data
from training.evaluate import BUNDLE, Evaluation, evaluate
from training.experiment import DATA, EXPERIMENTS, Experiment, named, read_experiment
from training.inference import inferer, probabilities
from training.shapes import Shape
from workers.calibration import Calibration
from workers.preprocessing import GRID_MM, HU_WINDOW

#: By task: what a bundle says of where its weights come from.
_SOURCES: Mapping[str, Mapping[str, Any]] = {
    "lung_nodule": {
        "authors": "dicom-node",
        "licence": "see docs/README.md: trained on data under CC BY 3.0 and MIT",
        "data_source": "shapes of LIDC-IDRI drawn into lungs of NSCLC Radiogenomics R01-001 and 4D-Lung 113_HM10395, "
        "and into generated ones",
        "data_type": "semi-synthetic CT",
        "changes": {
            "0.1.0": "first version, semi-synthetic training data",
            "0.2.0": "generated lungs and lookalikes teach, too; a second look at candidates",
            "0.3.0": "a second round of the search on nodules against thick vessels, in more generated lungs",
            "0.4.0": "hila of generated lungs differ; longer training, and a larger second look",
            "0.5.0": "a second look that learns from lookalikes as the search marks them, in more generated lungs",
        },
        "trained_on": {
            "slice_thickness_mm": [1.0, 5.0],
            "slice_gap_mm": [0.0, 1.0],
            "pixel_spacing_mm": [0.4, 1.0],
            "kernels": ["soft", "sharp"],
            "contrast": ["with", "without"],
            "lungs_cut": [0.0, 0.3],
            # Drawn phantoms: 1.6 as they are, 12 where one part lies four pixels aside.
            "discontinuity": [0.0, 3.0],
            "noise_hu": [0.0, 45.0],
        },
    },
    "lung_nodule_cases": {
        "authors": "whoever trained it",
        "licence": "that of whoever trained it",
        "data_source": "scans with findings of whoever trained it",
        "data_type": "CT",
    },
}
#: Of a network that does not say how often it halves its input.
_USUAL_STRIDES = (2, 2, 2, 2, 2)


def inference(experiment: Experiment, report_threshold: float) -> dict[str, Any]:
    """configs/inference.json: how to build and run the network, and what to do before and after."""
    return {
        "imports": [],
        "network_def": dict(experiment.network),
        "inferer": inferer(experiment.bundle["roi_size"], experiment.bundle["overlap"]),
        "preprocessing": {"grid_mm": list(GRID_MM), "hu_window": list(HU_WINDOW)},
        "postprocessing": {
            "activation": "sigmoid",
            "candidate_threshold": experiment.bundle["candidate_threshold"],
            "report_threshold": report_threshold,
        },
    }


def metadata(experiment: Experiment, calibration: Calibration | None = None) -> dict[str, Any]:
    """configs/metadata.json: what the bundle is, of which version, for which use, made with what."""
    said = _SOURCES[experiment.task]
    step = 2 ** len(experiment.network.get("strides", _USUAL_STRIDES))
    return {
        "schema": SCHEMA,
        "version": experiment.bundle["version"],
        "changelog": {experiment.bundle["version"]: f"trained on {said['data_type']}", **said.get("changes", {})},
        "monai_version": installed("monai"),
        "pytorch_version": installed("torch"),
        "numpy_version": installed("numpy"),
        "required_packages_version": {"scipy": installed("scipy")},
        "name": experiment.name,
        "task": "lung nodule detection on chest CT",
        "description": f"Voxel-wise probability of lung nodules on chest CT; trained on {said['data_type']}.",
        "authors": said["authors"],
        "copyright": said["licence"],
        "license": said["licence"],
        "intended_use": "research, not for diagnostic use",
        "data_source": said["data_source"],
        "data_type": said["data_type"],
        **({"trained_on": said["trained_on"]} if "trained_on" in said else {}),
        "image_classes": "one channel, HU clipped to -1000..300 and mapped to 0..1, grid of 1.5 x 1 x 1 mm",
        "pred_classes": "one channel, the logit of lung nodule",
        **({} if calibration is None else {"calibration": calibration.as_json()}),
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


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exported network came to on held-out slabs."""

    report_threshold: float
    #: As Markdown.
    figures: str


def card(
    experiment: Experiment,
    *,
    parameters: int,
    steps: int,
    shapes: Sequence[Shape],
    figures: str,
    further: str = "",
    second_look: str = "There is none.",
    operating_point: str = "That of the searching network alone, above.",
    duration: str = "Not kept: this bundle was exported by itself.",
) -> str:
    """docs/README.md from the experiment's card, with what was measured and made, as Markdown."""
    template = (EXPERIMENTS / f"{experiment.task}.md").read_text()
    return template.format(
        version=experiment.bundle["version"],
        parameters=f"{parameters:,}",
        shapes=len(shapes),
        training_shapes=sum(shape.use == "teaching" for shape in shapes),
        held_out_shapes=sum(shape.use == "validation" for shape in shapes),
        steps=steps,
        batch=experiment.data["batch"],
        patch=_sides(experiment),
        thoraces=experiment.data["thoraces"],
        further=further,
        figures=figures,
        second_look=second_look,
        operating_point=operating_point,
        duration=duration,
    )


def second_round(experiment: Experiment, steps: int) -> str:
    """What the card says of a second round, as further sentences; `experiment` is the round's."""
    data = experiment.data
    large = f" {data['large']:.0%} were drawn from the shapes of 15 mm and more alone," if data["large"] else ""
    return (
        f" Then {steps} steps of {data['batch']} patches of {_sides(experiment)} voxels, among {data['thoraces']}"
        f" generated thoraces: {data['beside_vessels']:.0%} of the nodules looked for a place against a thick vessel,"
        f" which not every patch has,{large} and those"
        f" of which less than {data['least_seen']:.0%} differed from what was there before were left out."
    )


def _sides(experiment: Experiment) -> str:
    return " x ".join(str(side) for side in experiment.data["patch"])


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
    network = networks.built(experiment.network)
    state = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["averaged"])
    made = export_network(experiment, network, state["step"], bundle, *load_data(experiment, data), scans)
    return made.report_threshold


def export_network(
    experiment: Experiment,
    network: nn.Module,
    step: int,
    bundle: Path,
    backgrounds: Sequence[Background],
    shapes: Sequence[Shape],
    scans: int,
    calibration: Calibration | None = None,
) -> Exported:
    """Evaluate a network and write it as a bundle.

    Scores and thresholds are those of the network; a calibration goes into the metadata and tells what they mean.
    """
    settings = experiment.bundle
    result = evaluate(
        lambda values, lungs: probabilities(network, values, lungs, settings["roi_size"], settings["overlap"]),
        backgrounds,
        shapes,
        scans=scans,
        seed=experiment.seed,
        lowest=settings["candidate_threshold"],
    )
    threshold = result.threshold(settings["false_positives_wanted"], lowest=settings["candidate_threshold"])
    measured = figures(result, threshold, float(experiment.bundle["false_positives_wanted"]))
    text = card(experiment, parameters=networks.parameters(network), steps=step, shapes=shapes, figures=measured)
    write(bundle, network, documents(experiment, threshold, calibration, text))
    return Exported(report_threshold=threshold, figures=measured)


def documents(
    experiment: Experiment, report_threshold: float, calibration: Calibration | None, text: str
) -> dict[str, str]:
    """The files of a detector's bundle but its weights; text is the card."""
    return {
        "configs/inference.json": json.dumps(inference(experiment, report_threshold), indent=2) + "\n",
        "configs/metadata.json": json.dumps(metadata(experiment, calibration), indent=2) + "\n",
        "docs/README.md": text,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("--run", type=Path, help="folder of the checkpoint")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds lung-backgrounds/")
    parser.add_argument("--scans", type=int, default=8, help="validation scans drawn a background")
    chosen = parser.parse_args(arguments)
    experiment = read_experiment(named(chosen.experiment))
    run = chosen.run or experiment.folder
    threshold = export(experiment, run / "checkpoint.pt", chosen.bundle, chosen.data, chosen.scans)
    print(f"{chosen.bundle}: report threshold {threshold:.2f}")


if __name__ == "__main__":
    main()

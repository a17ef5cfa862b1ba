"""Bundles for tests: a tiny network with the same description as the ones that ship."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch
from monai.networks.nets.unet import UNet

NETWORK = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}


def little_bundle(folder: Path, *, roi_size: tuple[int, int, int] = (16, 32, 32), seed: int = 1) -> Path:
    """Write a bundle whose weights are random, always the same for a seed, and return its folder."""
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    metadata = {
        "name": "Little network",
        "version": "0.0.1",
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"scipy": "1.10"},
        "authors": "the project",
        "intended_use": "tests",
        "network_data_format": {"inputs": {"image": {"spatial_shape": ["4*n", "4*n", "4*n"]}}, "outputs": {}},
    }
    configuration = {
        "network_def": {"_target_": "UNet", **NETWORK},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(roi_size),
            "overlap": 0.25,
            "mode": "gaussian",
        },
        "preprocessing": {"grid_mm": [1.5, 1.0, 1.0], "hu_window": [-1000, 300]},
        "postprocessing": {"candidate_threshold": 0.3, "report_threshold": 0.5},
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=1))
    (folder / "configs" / "inference.json").write_text(json.dumps(configuration, indent=1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(UNet(**NETWORK).state_dict(), folder / "models" / "model.pt")
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    """List every file of a bundle as sha256sum does."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "SHA256SUMS")
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in files
    )
    (folder / "SHA256SUMS").write_text("".join(lines))

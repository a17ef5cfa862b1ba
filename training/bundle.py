"""A bundle written: the files of the MONAI bundle specification, and their checksums.

The layout: configs/{metadata,inference}.json, models/model.pt, docs/README.md, and SHA256SUMS over them.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def write(bundle: Path, network: nn.Module, documents: Mapping[str, str]) -> None:
    """The files of a bundle, and their checksums in the format of sha256sum."""
    for name, text in documents.items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text(text)
    weights = bundle / "models" / "model.pt"
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: value.contiguous().clone() for name, value in network.state_dict().items()}, weights)
    seal(bundle)


def seal(bundle: Path) -> None:
    """The checksums of all files of a bundle, in the format of sha256sum."""
    files = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()]
    names = sorted(name for name in files if name != "SHA256SUMS")
    sums = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    # Last: a worker takes a bundle up when these are there.
    (bundle / "SHA256SUMS").write_text("".join(sums))


def installed(package: str) -> str:
    """The public version of an installed package: what a bundle says it was made with."""
    return version(package).partition("+")[0]

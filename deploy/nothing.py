"""An algorithm that does nothing, and a bundle for it: what is left is the machinery alone."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from workers.algorithms import Algorithm, Prepared, Reading
from workers.bundles import CONFIGURATION, METADATA, SUMS, WEIGHTS, Bundle
from workers.inference import Inference
from workers.volume import Volume

NAME = "nothing"


class Nothing:
    """Finds nothing, in no time."""

    name = NAME

    def __init__(self, _bundle: Bundle, _inference: Inference) -> None:
        """There is nothing to keep."""

    def reads(self, _volume: Volume) -> None:
        """Reads everything."""

    def prepare(self, _volume: Volume) -> Prepared:
        """One voxel, for those who want something prepared."""
        return Prepared(voxels=np.zeros((1, 1, 1), dtype=np.float32), where=np.zeros((1, 1, 1), dtype=bool))

    def read(self, volume: Volume, _prepared: Prepared | None = None) -> Reading:
        """Nothing was found."""
        return Reading(findings=(), labels=np.zeros(volume.voxels.shape, dtype=np.uint8), parameters=())


ALGORITHMS: Mapping[str, Callable[[Bundle, Inference], Algorithm]] = MappingProxyType({NAME: Nothing})


def write_bundle(folder: Path) -> Path:
    """A bundle for it, whose network hands on what it is given."""
    files = {
        METADATA: json.dumps(
            {
                "version": "1.0.0",
                "name": NAME,
                "monai_version": version("monai"),
                "pytorch_version": version("torch").partition("+")[0],
                "numpy_version": version("numpy"),
                "intended_use": "measuring the machinery, never for patients",
                "network_data_format": {"inputs": {}, "outputs": {}},
            }
        ),
        CONFIGURATION: json.dumps(
            {"network_def": {"_target_": "torch.nn.Identity"}, "inferer": {"_target_": "SimpleInferer"}}
        ),
    }
    bundle = folder / NAME
    for name, text in files.items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text(text)
    (bundle / WEIGHTS).parent.mkdir(exist_ok=True)
    torch.save(torch.nn.Identity().state_dict(), bundle / WEIGHTS)
    names = sorted((*files, WEIGHTS))
    sums = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / SUMS).write_text("".join(sums))
    return bundle

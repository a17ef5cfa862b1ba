"""A real lung read in smaller windows: close to the bundle's own windows, and not the same."""

from pathlib import Path

import nrrd
import numpy as np
import torch

from workers.bundles import SHIPPED_BUNDLES, load_bundle
from workers.inference import Inference
from workers.preprocessing import GRID_MM, lung_mask, normalise, resample

#: Around the labelled nodule, on the network's grid.
AROUND = (slice(76, 142), slice(142, 238), slice(82, 178))


def test_halved_windows_see_in_a_real_lung_nearly_what_whole_ones_see(shared: Path) -> None:
    image, header = nrrd.read(str(shared / "data" / "chest-ct-lung1" / "lung1_image.nrrd"))
    spacing = tuple(float(np.linalg.norm(axis)) for axis in header["space directions"])[::-1]
    hu = resample(np.ascontiguousarray(image.transpose(2, 1, 0), dtype=np.float32), spacing)
    lungs = lung_mask(hu, GRID_MM)[AROUND]
    voxels = np.ascontiguousarray(normalise(hu)[AROUND])
    inference = Inference(load_bundle(SHIPPED_BUNDLES / "lung_nodule"), "cpu")
    whole = inference.probability(voxels, lungs)

    def short_of_memory(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].numel() > 32 * 48 * 48:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    inference._network.register_forward_pre_hook(short_of_memory)
    halved = inference.probability(voxels, lungs)

    assert inference.concession == "in windows of 32 x 48 x 48 voxels on the CPU"
    apart = np.abs(halved - whole)[lungs]
    print(f"mean {apart.mean():.5f}, p99.9 {np.quantile(apart, 0.999):.3f}, most {apart.max():.3f}")
    assert apart.mean() < 0.005
    # The nodule is the surest thing there is, seen either way.
    assert abs(halved[lungs].max() - whole[lungs].max()) < 0.05
    assert np.linalg.norm(np.subtract(*(np.argwhere(p == p[lungs].max())[0] for p in (whole, halved)))) < 8

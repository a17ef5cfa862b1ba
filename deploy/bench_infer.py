"""`make bench-infer`: seconds and memory of a reading by stage, beside MONAI's plain sliding window, same network.

Each way runs in a process of its own, so that its peak of memory is its own. The study is a drawn phantom, or a folder
with a CT series; nothing is sent and nothing is kept.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import SHIPPED_BUNDLES, Bundle, load_bundle
from workers.inference import Inference, chosen_device
from workers.preprocessing import normalise, resample
from workers.volume import Volume, load_volume

#: Measured by name, in order: seconds, and the peak of the process's memory so far in MB.
Stages = dict[str, tuple[float, float]]


class _Stopwatch:
    """Notes each stage as it ends."""

    def __init__(self) -> None:
        self.stages: Stages = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.stages[name] = (now - self._since, peak)
        self._since = time.perf_counter()


def ours(volume: Volume, bundle: Bundle, device: str, watch: _Stopwatch) -> int:
    """The shipped algorithm as a worker runs it; how many findings."""
    inference = Inference(bundle, device)
    algorithm = LungNodule(bundle, inference)
    inference.warm_up()
    watch.lap("network loaded and warm")
    prepared = algorithm.prepare(volume)
    watch.lap("grid and lungs")
    probability = inference.probability(prepared.voxels, prepared.where)
    watch.lap("network")
    found = algorithm.findings(probability, prepared, volume)
    watch.lap("outlines and measurements")
    explained = found.dependences(lambda: False) if found.dependences is not None else {}
    watch.lap(f"scores explained ({len(explained)})")
    return len(found.findings)


def plain(volume: Volume, bundle: Bundle, device: str, watch: _Stopwatch) -> int:
    """The same network and windows over the whole grid, as a bundle's own script does; nothing is outlined."""
    chosen = chosen_device(device)
    network, inferer = bundle.network().to(chosen), bundle.inferer()
    watch.lap("network loaded and warm")
    values = normalise(resample(volume.voxels, volume.spacing_mm))
    watch.lap("grid and lungs")
    with torch.inference_mode():
        probability = torch.sigmoid(inferer(torch.from_numpy(values)[None, None].to(chosen), network)).cpu().numpy()
    watch.lap("network")
    return int((probability > bundle.number("postprocessing", "report_threshold")).any())


WAYS: Mapping[str, Callable[[Volume, Bundle, str, _Stopwatch], int]] = MappingProxyType({"ours": ours, "plain": plain})


def measure(folder: Path, way: str, device: str) -> Stages:
    """One way over one series, from its files on."""
    watch = _Stopwatch()
    volume = load_volume(sorted(path for path in folder.rglob("*") if path.is_file()))
    watch.lap("series loaded")
    WAYS[way](volume, load_bundle(SHIPPED_BUNDLES / LungNodule.name), device, watch)
    return watch.stages


def table(found: Mapping[str, Stages]) -> list[str]:
    """A line for each stage, with both ways beside each other."""
    head = f"{'stage':<28}" + "".join(f" {way + ' s':>9} {way + ' MB':>9}" for way in found)
    lines = [head]
    for stage in dict.fromkeys(stage for stages in found.values() for stage in stages):
        cells = (stages.get(stage) for stages in found.values())
        lines.append(
            f"{stage:<28}" + "".join(f" {c[0]:9.2f} {c[1]:9.0f}" if c else f" {'-':>9} {'-':>9}" for c in cells)
        )
    totals = (sum(seconds for seconds, _ in stages.values()) for stages in found.values())
    lines.append(f"{'all':<28}" + "".join(f" {total:9.2f} {'':>9}" for total in totals))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both ways over one study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, metavar="DIR", help="a folder with one CT series instead of a phantom")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--one", choices=WAYS, help="only this way, as JSON")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(options.study, options.one, options.device)))
        return 0
    with tempfile.TemporaryDirectory() as drawn:
        study = options.study or _phantom(Path(drawn))
        found = {way: _measured(study, way, options.device) for way in WAYS}
    print("\n".join(table(found)))
    device = chosen_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    load = os.getloadavg()[0]
    print(f"{device} ({name}), torch {torch.__version__}, NumPy {np.__version__}; MB: the process's peak so far")
    print(f"load of the machine when it ended: {load:.1f}; where that is more than the cores, seconds say little")
    return 0


def _phantom(folder: Path) -> Path:
    """The series of a drawn phantom; what is true of it lies beside that."""
    print("drawing a chest phantom", flush=True)
    command = [sys.executable, "-m", "training.phantoms", str(folder), "--seed", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "series"


def _measured(study: Path, way: str, device: str) -> Stages:
    command = [sys.executable, "-m", "deploy.bench_infer", "--one", way, "--study", str(study), "--device", device]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return {stage: (seconds, peak) for stage, (seconds, peak) in json.loads(result.stdout).items()}


if __name__ == "__main__":
    sys.exit(main())

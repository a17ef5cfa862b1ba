"""`make evaluate`: the shipped detector of lung nodules, judged as it serves, on lungs and shapes that never taught.

Semi-synthetic volumes with and without nodules, and two real scans, go through the algorithm that a worker runs. The
volumes are drawn once, by seed, and kept in the cache. Writes evaluation.html and evaluation.json.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from training.dataset import load
from training.evaluation.drawn_scans import DrawnScans, cases
from training.evaluation.judged import Judged, Read, judge
from training.evaluation.real_judged import judge_real
from training.evaluation.real_scans import real_scans
from training.evaluation.report import Result, figures, write
from training.experiment import CACHE, DATA
from training.phantom_backgrounds import TEST_SEEDS
from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import SHIPPED_BUNDLES, Bundle, load_bundle
from workers.inference import Inference

WITH_NODULES, NORMALS = 100, 50
#: Of the set that judges; another seed is another set. That of 7 judged up to 0.4.0: how a bundle does on it is known.
SEED = 8


def reader(bundle: Bundle, threads: int = 0) -> Read:
    """The algorithm of a bundle as a worker builds it, but every candidate is reported: what counts is chosen later.

    Scores stay as they come: the report threshold is of those, not of calibrated ones. A second look may give a
    candidate less than the search's own threshold.
    """
    section = bundle.configuration["postprocessing"]
    loose = {**bundle.configuration, "postprocessing": {**section, "report_threshold": 0.0}}
    plain = {key: value for key, value in bundle.metadata.items() if key != "calibration"}
    return LungNodule(replace(bundle, configuration=loose, metadata=plain), Inference(bundle, threads=threads)).read


def evaluate(bundle: Bundle, read: Read, data: Path, with_nodules: int, normals: int, *, real: bool = True) -> Result:
    """Judge a bundle; the first so many volumes of each sort."""
    began = time.monotonic()
    threshold = bundle.number("postprocessing", "report_threshold")
    scans = DrawnScans(*load(data, CACHE), TEST_SEEDS, CACHE, SEED)
    judged: dict[bool, list[Judged]] = {True: [], False: []}
    for case in tqdm(cases(with_nodules, normals), desc="volumes"):
        judged[case.with_nodules].append(judge(scans(case), read, threshold))
    found = [judge_real(scan, read, threshold) for scan in (real_scans(data) if real else ())]
    return Result(
        bundle=f"{bundle.name} {bundle.version}, checksum {bundle.checksum[:12]}",
        report_threshold=threshold,
        with_nodules=tuple(judged[True]),
        normals=tuple(judged[False]),
        real=tuple(nodule for scan in found for nodule in scan.nodules),
        real_false={scan.name: scan.false_positives for scan in found},
        real_sights=tuple(seen for scan in found for seen in scan.sights),
        seconds=time.monotonic() - began,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.evaluate", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLES / LungNodule.name)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder that holds lung-backgrounds/ and the real scans"
    )
    parser.add_argument("--cases", type=int, default=WITH_NODULES, help="volumes with nodules; half as many without")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--out", type=Path, default=Path("evaluation-output"), help="folder of the report")
    chosen = parser.parse_args(arguments)
    bundle = load_bundle(chosen.bundle)
    normals = min(NORMALS, (chosen.cases + 1) // 2)
    result = evaluate(bundle, reader(bundle, chosen.threads), chosen.data, chosen.cases, normals)
    tables = figures(result)
    page, numbers = write(result, tables, chosen.out)
    print(f"{len(result.with_nodules)} volumes with nodules, {normals} without, {result.seconds:.0f} s")
    for title, rows in tables.items():
        print(title)
        print("\n".join(f"  {name}: {estimate}, n = {estimate.cases}" for name, estimate in rows.items()))
    print(f"{page}\n{numbers}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The worker's own command: `python -m workers work` reads jobs, `python -m workers bundles` lists bundles."""

import argparse
import logging
import os
import sys
from pathlib import Path

from dicom_node.archive.holdings import Holdings
from dicom_node.core.errors import BundleInvalid, NodeError
from dicom_node.settings import BundleSettings, Settings
from dicom_node.settings_loading import load_settings
from dicom_node.telemetry import configure_logging
from dicom_node.work_log import keep_work_log

log = logging.getLogger(__name__)

_OTHER_SERIES = {"caveat": "with a caveat", "refuse": "not at all"}


def main() -> int:
    """Run one of the commands; 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("command", choices=("work", "bundles"))
    parser.add_argument("--config", type=Path)
    parser.add_argument("--queues")
    parser.add_argument(
        "--node", type=int, metavar="PID", help="the process that this worker is a part of, and ends with"
    )
    options = parser.parse_args()
    os.umask(0o027)
    configure_logging(as_json=not sys.stderr.isatty())
    overrides = {"worker.queues": options.queues.split(",")} if options.queues else {}
    try:
        settings = load_settings(options.config, os.environ, overrides)
        return _work(settings, options.node) if options.command == "work" else _list_bundles(settings)
    except NodeError as error:
        print(f"dicom-node: {error}", file=sys.stderr)
        return 1


def _work(settings: Settings, node: int | None) -> int:
    # Here, since torch takes seconds to import and a wrong setting should not.
    from workers.celery_app import work

    keep_work_log(settings.node.data_dir)
    holdings = Holdings.open(settings)
    url = settings.broker.url or f"redis+socket://{settings.node.data_dir / 'redis.sock'}"
    try:
        work(settings, holdings.index, holdings.archive, broker_url=url, queues=settings.worker.queues, node=node)
    finally:
        holdings.index.close()
    return 0


def _list_bundles(settings: Settings) -> int:
    from workers.algorithms.network_output import read_by
    from workers.bundles import listed_bundles, load_bundle, named_bundles
    from workers.input_check import trained_on

    faults = 0
    all_listed = listed_bundles(settings.bundles)
    for name, (folder, listed) in named_bundles(settings.worker.bundle_dirs, all_listed).items():
        try:
            bundle = load_bundle(folder, listed)
            reader, ranges = read_by(bundle, is_listed=listed in all_listed), trained_on(bundle)
        except BundleInvalid as error:
            faults += 1
            print(f"{name}: INVALID: {error}")
            continue
        checked = "as listed in SHA256SUMS" if bundle.verified else "it brought no SHA256SUMS to check against"
        print(f"{bundle.name} {bundle.version}: {bundle.title}")
        print(f"  checksum      {bundle.checksum} ({checked})")
        print(f"  intended use  {bundle.intended_use}")
        print(f"  read by       {reader}")
        print(f"  trained on    {ranges}; other series are read {_OTHER_SERIES[listed.out_of_range]}")
        print(f"  may run       {_permissions(listed)}")
        print(f"  folder        {folder}")
    return 1 if faults else 0


def _permissions(listed: BundleSettings) -> str:
    allowed = ["MONAI's and torch's classes"]
    allowed += ["its own code"] if listed.own_code else []
    allowed += ["TorchScript"] if listed.torchscript else []
    return ", ".join(allowed)


if __name__ == "__main__":
    sys.exit(main())

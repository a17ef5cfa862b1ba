"""A worker as any other, whose only algorithm does nothing: `python -m deploy.nothing_worker --config FILE`."""

import argparse
import os
import sys
from pathlib import Path

from dicom_node.archive.holdings import Holdings
from dicom_node.settings_loading import load_settings
from dicom_node.telemetry import configure_logging
from workers.celery_app import work

#: By name: only its reading process imports what computes.
ALGORITHMS = "deploy.nothing:ALGORITHMS"
QUEUES = ("routine",)


def main() -> int:
    """Run until asked to end."""
    parser = argparse.ArgumentParser(prog="python -m deploy.nothing_worker", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    os.umask(0o027)
    configure_logging(as_json=not sys.stderr.isatty())
    settings = load_settings(options.config, os.environ)
    holdings = Holdings.open(settings)
    url = settings.broker.url or f"redis+socket://{settings.node.data_dir / 'redis.sock'}"
    try:
        work(settings, holdings.index, holdings.archive, broker_url=url, queues=QUEUES, algorithms=ALGORITHMS)
    finally:
        holdings.index.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

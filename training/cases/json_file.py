"""A JSON object in a file of a data set."""

import json
from pathlib import Path
from typing import Any

from training.cases.case import DatasetInvalid


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetInvalid(f"{path} is no JSON ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise DatasetInvalid(f"{path} is no JSON object: it must hold lists by name, such as training")
    return content

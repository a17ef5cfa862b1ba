"""The rows of instances, and by which of them a study failed."""

import re
from collections.abc import Mapping
from typing import Any

from dicom_node.core.lifecycle import StudyState
from dicom_node.core.study import Instance

#: The columns of an instance's own values.
ROW = tuple(name for name in Instance.__dataclass_fields__ if name != "searchable")


def failed_by(state: StudyState, reason: str, instance: Instance) -> bool:
    """Whether a study in this state, for this reason, failed by this instance."""
    return state == StudyState.FAILED and _names(reason, instance.sop_instance_uid)


def _names(reason: str, uid: str) -> bool:
    """Whether the text names this UID, and not merely a longer one."""
    # Also as the name of its file, which may go on with twelve digits of its content's hash.
    return re.search(rf"(?<![0-9.]){re.escape(uid)}(\.[0-9a-f]{{12}}\.dcm|\.?(?![0-9.]))", reason) is not None


def instance_of(row: Mapping[Any, Any]) -> Instance:
    """The instance of such a row."""
    fields = {name: row[name] for name in ROW}
    fields["attributes"] = {
        keyword: tuple(value) if isinstance(value, list) else value for keyword, value in row["attributes"].items()
    }
    return Instance(**fields)

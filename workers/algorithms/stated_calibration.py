"""The calibration that a bundle states in its metadata, for whichever algorithm reads with it."""

from dicom_node.core.errors import BundleInvalid
from workers.bundles import METADATA, Bundle
from workers.calibration import Calibration


def stated_calibration(bundle: Bundle) -> Calibration | None:
    """None where it states none; BundleInvalid where it states one that cannot be applied."""
    stated = bundle.metadata.get("calibration")
    if stated is None:
        return None
    try:
        return Calibration.from_json(stated)
    except (AttributeError, TypeError, ValueError) as error:
        raise BundleInvalid(f"bundle {bundle.name}: calibration of {METADATA}: {error}; correct it") from error

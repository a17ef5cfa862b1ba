"""A series as the network of a bundle wants it: the transforms that its inference.json names, run as they stand there.

Only the first of them are ours: files are not read again, the volume in memory is handed over with its affine and its
one channel. MONAI
counts voxels x, y, z, and places them in RAS+ mm; a volume counts them k, j, i, and places them in LPS+ mm (PS3.3
Section C.7.6.2.1.1). What follows, `Orientationd` and `Spacingd` and the rest, is MONAI's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils.enums import MetaKeys
from numpy.typing import NDArray

from dicom_node.core.errors import BundleInvalid
from workers.bundles import CONFIGURATION, Bundle, transform_name
from workers.configuration import Configuration
from workers.volume import Volume

Affine = NDArray[np.float64]

#: Transforms that read files: the volume is there already.
_READERS = frozenset({"LoadImage"})
#: Transforms that find or make the axis of channels: it is there already, and some versions of MONAI do not have them.
_CHANNEL_MAKERS = frozenset({"EnsureChannelFirst", "AddChannel"})
#: Transforms without which a series would be read at a wrong size or upside down.
_NEEDED = frozenset({"Spacing", "Orientation"})
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
#: What transforms raise for an image that they cannot take.
_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)


@dataclass(frozen=True, kw_only=True)
class NetworkImage:
    """What goes into the network, and where its voxels lie in the series."""

    #: [channel, x, y, z]
    voxels: NDArray[np.float32]
    #: 4x4: (x, y, z, 1) of the network's grid to (i, j, k, 1) of the series.
    to_series: Affine


class Preparation:
    """The transforms of a bundle, ready for one series after the other."""

    def __init__(self, bundle: Bundle, parts: Configuration) -> None:
        """Build them; BundleInvalid where they are none, or not allowed."""
        self._bundle = bundle.name
        found = parts.raw("preprocessing::transforms")
        if not isinstance(found, list):
            reason = f"bundle {bundle.name}: {CONFIGURATION} has no list preprocessing::transforms"
            raise BundleInvalid(f"{reason}; add the transforms that make the network's input of a CT in HU")
        self._key, self._is_ras = "", True
        self._transforms = list(self._built(found, parts))

    def __call__(self, volume: Volume) -> NetworkImage:
        """The series on the network's own grid; BundleInvalid where its transforms do not take it."""
        affine = _LPS_TO_RAS @ volume.affine if self._is_ras else volume.affine
        voxels = torch.from_numpy(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)))
        image = MetaTensor(voxels[None], affine=torch.from_numpy(affine))
        image.meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        result = self._run(image)
        to_world = np.asarray(result.affine.cpu().numpy(), dtype=np.float64)
        return NetworkImage(
            voxels=np.asarray(result.as_tensor().float().cpu().numpy(), dtype=np.float32),
            to_series=np.asarray(np.linalg.solve(affine, to_world), dtype=np.float64),
        )

    def _run(self, image: MetaTensor) -> MetaTensor:
        data: Any = {self._key: image} if self._key else image
        try:
            for transform in self._transforms:
                data = transform(data)
        except _FAULTS as error:
            reason = f"bundle {self._bundle}: its preprocessing does not take this series ({type(error).__name__})"
            raise BundleInvalid(f"{reason}; the worker's log has its place") from error
        result = data[self._key] if self._key else data
        if not isinstance(result, MetaTensor) or result.ndim != 4:
            reason = (
                f"bundle {self._bundle}: its preprocessing gives no image with a channel and three axes and a place"
            )
            raise BundleInvalid(f"{reason}; MONAI's transforms keep it, others may not")
        return result

    def _built(self, found: list[Any], parts: Configuration) -> Iterator[Any]:
        for number, content in enumerate(found):
            path = f"preprocessing::transforms::{number}"
            name = transform_name(content) if isinstance(content, Mapping) else ""
            if name in _READERS:
                self._take_reader(content, parts, path)
            elif name in _CHANNEL_MAKERS:
                self._take_key(content)
            else:
                transform = parts.built(path)
                if callable(transform):
                    self._take_key(content)
                    yield transform
                elif name in _NEEDED:
                    reason = f"bundle {self._bundle}: {name} is switched off in its preprocessing"
                    raise BundleInvalid(f"{reason}, as if every series came on the network's grid; switch it on")

    def _take_reader(self, content: Mapping[str, Any], parts: Configuration, path: str) -> None:
        """What would read the file says how the image is called, and which way its axes were taken to point."""
        if "_disabled_" in content and _true(parts.built(f"{path}::_disabled_")):
            return
        self._take_key(content)
        self._is_ras = content.get("affine_lps_to_ras", True) is not False

    def _take_key(self, content: Any) -> None:
        if isinstance(content, Mapping) and not self._key and "keys" in content:
            keys = content["keys"]
            names = [keys] if isinstance(keys, str) else list(keys)
            if len(names) != 1:
                reason = f"bundle {self._bundle}: its preprocessing takes {len(names)} images at once"
                raise BundleInvalid(f"{reason}; a series is one image: bundles of one image can be used")
            self._key = str(names[0])


def _true(value: Any) -> bool:
    return value.strip().lower() == "true" if isinstance(value, str) else bool(value)

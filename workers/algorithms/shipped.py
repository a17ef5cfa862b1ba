"""The algorithms that come with this software, by the name of their bundle, which routes call, or by its output."""

from collections.abc import Mapping
from types import MappingProxyType

from workers.algorithms.classification import Classification
from workers.algorithms.detection import Detection
from workers.algorithms.lung_nodule import LungNodule
from workers.algorithms.network_output import Kind
from workers.algorithms.segmentation import Segmentation

#: Which algorithm makes sense of which bundle's output.
ALGORITHMS = MappingProxyType({LungNodule.name: LungNodule})

#: What makes sense of a bundle that has no algorithm of its own and that the settings list, by its kind of output.
BY_KIND: Mapping[Kind, type[Classification] | type[Detection] | type[Segmentation]] = MappingProxyType(
    {Kind.CLASSIFICATION: Classification, Kind.DETECTION: Detection, Kind.SEGMENTATION: Segmentation}
)

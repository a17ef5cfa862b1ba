"""The algorithms that come with this software, by the name of their bundle and of what routes call them."""

from types import MappingProxyType

from workers.algorithms.lung_nodule import LungNodule

#: Which algorithm makes sense of which bundle's output.
ALGORITHMS = MappingProxyType({LungNodule.name: LungNodule})

"""The output of a bundle's network: of which kind it is, as metadata.json says, and what is done with it here."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dicom_node.core.errors import BundleInvalid
from workers.bundles import METADATA, Bundle, transform_name

if TYPE_CHECKING:
    from workers.configuration import Configuration


class Kind(StrEnum):
    """What a network gives."""

    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"


class Activation(StrEnum):
    """What makes probabilities of a network's output."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


#: By format and by type of `network_data_format.outputs` (MONAI bundle specification); the format is more telling.
_BY_FORMAT: Mapping[str, Kind] = {
    "dict": Kind.DETECTION,
    "boxes": Kind.DETECTION,
    "segmentation": Kind.SEGMENTATION,
    "labels": Kind.CLASSIFICATION,
    "classes": Kind.CLASSIFICATION,
    "classification": Kind.CLASSIFICATION,
    "probabilities": Kind.CLASSIFICATION,
}
_BY_TYPE: Mapping[str, Kind] = {
    "object": Kind.DETECTION,
    "image": Kind.SEGMENTATION,
    "probabilities": Kind.CLASSIFICATION,
    "tuple": Kind.CLASSIFICATION,
}
#: Bundles of these names are read by an algorithm of their own.
OWN_ALGORITHMS = ("lung_nodule",)
#: Steps after the network that are done here in our own way: activation, the way back to the series, and its files.
_DONE_HERE = (
    "Activations",
    "AffineBoxToWorldCoordinate",
    "AsDiscrete",
    "ClipBoxToImage",
    "ConvertBoxMode",
    "ConvertBoxToStandardMode",
    "DeleteItems",
    "EnsureType",
    "Invert",
    "SaveImage",
)


def output_of(bundle: Bundle) -> Mapping[str, Any]:
    """The description of the network's output; BundleInvalid where there is none, or more than one."""
    outputs = (bundle.metadata.get("network_data_format") or {}).get("outputs") or {}
    described = [output for output in outputs.values() if isinstance(output, Mapping)]
    if len(described) != 1:
        reason = f"bundle {bundle.name}: network_data_format of {METADATA} describes {len(described)} outputs"
        raise BundleInvalid(f"{reason}; describe the one that findings are made of")
    return described[0]


def kind_of(bundle: Bundle) -> Kind:
    """Of what kind a bundle is; BundleInvalid where its description does not say."""
    output = output_of(bundle)
    stated, kind = str(output.get("format")).lower(), str(output.get("type")).lower()
    found = _BY_FORMAT.get(stated) or _BY_TYPE.get(kind)
    if found is None:
        reason = f'bundle {bundle.name}: an output of type "{kind}" and format "{stated}" is none that is known here'
        known = ", ".join(sorted({*_BY_FORMAT, *_BY_TYPE}))
        raise BundleInvalid(f"{reason}; known are {known}: correct {METADATA}, or write an algorithm of its own")
    return found


def steps_of(parts: "Configuration") -> list[Mapping[str, Any]]:
    """The steps after the network, as inference.json lists them."""
    found = parts.raw("postprocessing::transforms") if "postprocessing::transforms" in parts else None
    return [step for step in found or [] if isinstance(step, Mapping)]


def read_by(bundle: Bundle, *, is_listed: bool) -> str:
    """What makes sense of a bundle's output, in words; BundleInvalid where its description does not say its kind."""
    if bundle.name in OWN_ALGORITHMS:
        return f"its own algorithm, {bundle.name}"
    if not is_listed:
        return "nothing: it has no algorithm of its name; list it in [[bundles]] to have it read by its output"
    return f"its output, a {kind_of(bundle)}"


def remarks_on(bundle: Bundle, parts: "Configuration") -> tuple[str, ...]:
    """What a reader must know of steps that the bundle names and that were not done, and of what it is meant for."""
    left_out = sorted({transform_name(step) for step in steps_of(parts)} - set(_DONE_HERE))
    remarks = [f"Its maker says of the algorithm: {bundle.intended_use.rstrip('.')}."]
    if left_out:
        remarks.append(f"Steps of the bundle that were not done: {', '.join(left_out)}.")
    return tuple(remarks)


def activation_of(bundle: Bundle, parts: "Configuration", output: Mapping[str, Any]) -> Activation:
    """What the bundle's own steps do after the network; where none says it, what the number of its channels means."""
    for step in steps_of(parts):
        if transform_name(step) == "Activations":
            named = [kind for kind in Activation if step.get(kind.value) is True]
            if len(named) != 1:
                reason = f"bundle {bundle.name}: Activations in postprocessing names {len(named)} of softmax, sigmoid"
                raise BundleInvalid(f"{reason}; name one")
            return named[0]
    section = parts.raw("postprocessing") if "postprocessing" in parts else None
    stated = section.get("activation") if isinstance(section, Mapping) else None
    if stated in list(Activation):
        return Activation(stated)
    return Activation.SIGMOID if output.get("num_channels") == 1 else Activation.SOFTMAX

"""What a bundle of nodules may hold beside its network: a second look, and an estimate of readers' ratings."""

import pickle  # for the name of its error alone: weights are read with weights_only
from collections.abc import Callable

import torch

from dicom_node.core.errors import BundleInvalid
from workers.bundles import CONFIGURATION, METADATA, Bundle
from workers.precision import allows_bfloat16
from workers.reader_estimate import ReaderEstimate
from workers.second_look import SecondLook, Weights

#: Key of inference.json, and the file of its weights.
SECOND_LOOK, SECOND_WEIGHTS = "second_look", "models/second_look.pt"
READER_ESTIMATE = "reader_estimate"
#: Key of metadata.json: what the estimate was fitted to, where that was what became of the patients. Only then is it
#: told as a probability of cancer.
OUTCOMES = "trained_on_outcomes"
#: What an estimate of ratings says of itself.
NOT_OF_CANCER = "not a probability of cancer"
_UNLOADABLE = (AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def second_look(bundle: Bundle, beat: Callable[[str], None] = lambda _step: None) -> SecondLook | None:
    """The second network of a bundle; None where it has none."""
    section = bundle.configuration.get(SECOND_LOOK)
    if section is None:
        return None
    network = bundle.parts().built(f"{SECOND_LOOK}::network_def")
    try:
        network.load_state_dict(torch.load(bundle.folder / SECOND_WEIGHTS, map_location="cpu", weights_only=True))
        weights = Weights(**{name: float(value) for name, value in section["score"].items()})
        lower = allows_bfloat16(bundle.metadata)
        return SecondLook(network, section["size"], weights, beat, lower_precision=lower)
    except (*_UNLOADABLE, pickle.UnpicklingError) as error:
        said = str(error).partition("\n")[0]
        reason = f"bundle {bundle.name}: {SECOND_LOOK} in {CONFIGURATION} and {SECOND_WEIGHTS} cannot be used ({said})"
        raise BundleInvalid(f"{reason}; export both together") from error


def reader_estimate(bundle: Bundle) -> ReaderEstimate | None:
    """How a bundle estimates readers' ratings; None where it does not."""
    section = bundle.configuration.get(READER_ESTIMATE)
    if section is None:
        return None
    try:
        return ReaderEstimate.from_json(section)
    except _UNLOADABLE as error:
        reason = f"bundle {bundle.name}: {READER_ESTIMATE} in {CONFIGURATION} cannot be used ({error})"
        raise BundleInvalid(f"{reason}; fit it with this version") from error


def outcomes(bundle: Bundle) -> str:
    """To what outcomes of patients a bundle's estimate was fitted, in its own words; empty: to none."""
    said = bundle.metadata.get(OUTCOMES, "")
    if not isinstance(said, str):
        reason = f"bundle {bundle.name}: {OUTCOMES} of {METADATA} is {said!r}"
        raise BundleInvalid(f"{reason}; say in words how it was known which nodules were cancer")
    means = str((bundle.configuration.get(READER_ESTIMATE) or {}).get("means", ""))
    if said.strip() and NOT_OF_CANCER in means:
        reason = f"bundle {bundle.name}: {OUTCOMES} stands in {METADATA}, and {READER_ESTIMATE} in {CONFIGURATION} says"
        raise BundleInvalid(f"{reason} {means!r}; one of them is not so")
    return said.strip()

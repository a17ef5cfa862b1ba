"""Number formats that a network is computed in: full precision, or bfloat16 on a device that has units for it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

#: Key of metadata.json, and its value where the bundle's maker judged the network in bfloat16.
PRECISION, BFLOAT16 = "precision", "bfloat16"


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Whether a device multiplies matrices of bfloat16; a CPU without units for it is many times slower with them."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return kind == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def allows_bfloat16(metadata: Mapping[str, Any]) -> bool:
    """Whether a bundle may be computed in bfloat16: not unless it says so."""
    return metadata.get(PRECISION) == BFLOAT16


def is_lowered(device: torch.device, allowed: bool) -> bool:
    """Whether a network is run in bfloat16 for a patient: where the bundle allows it and a CPU is fast in it.

    On a GPU full precision takes seconds a study as it is.
    """
    return allowed and device.type == "cpu" and has_bfloat16_units(device)


def served(device: torch.device, allowed: bool) -> AbstractContextManager[object]:
    """The context in which a network is run for a patient."""
    if is_lowered(device, allowed):
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()

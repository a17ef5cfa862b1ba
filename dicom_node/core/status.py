"""Statuses: what a DIMSE response says became of its request (PS3.7 Annex C; PS3.4 Annexes B and F)."""

SUCCESS = 0x0000

#: Of any service.
INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_ARGUMENT = 0x0114
INVALID_ARGUMENT = 0x0115
INVALID_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
MISSING_VALUE = 0x0121
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
UNRECOGNISED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213

#: Of C-STORE (PS3.4 Table B.2-1).
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
#: Of the same range, for what nobody foresaw.
UNEXPECTED = 0xC0FF

#: The Error ID of a step in a final state (PS3.4 Section F.7.2.2.3).
MAY_NOT_BE_UPDATED = 0xA710


def in_hex(status: int) -> str:
    """As the standard writes it."""
    return f"0x{status:04X}"

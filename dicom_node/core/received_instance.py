"""A received instance: what a C-STORE request announces, and its data set as it came."""

from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, kw_only=True)
class ReceivedInstance:
    """One C-STORE request (PS3.7 Section 9.1.1) on its way from the wire to the archive."""

    #: As the command says; the data set may disagree.
    sop_class_uid: str
    sop_instance_uid: str
    #: As negotiated for the presentation context.
    transfer_syntax_uid: str
    #: The encoded data set without file meta information; seekable.
    data_set: BinaryIO
    calling_ae_title: str
    called_ae_title: str
    association_id: str

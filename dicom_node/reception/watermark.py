"""The watermark: with less room on the disk, instances are refused."""

import logging

from dicom_node.core.errors import OutOfResources

log = logging.getLogger(__name__)

_MEGABYTE = 1 << 20


class DiskWatermark:
    """Refuses instances while the disk is nearly full, and says so once each time that begins and ends."""

    def __init__(self, minimum_free_megabytes: int) -> None:
        self._minimum = minimum_free_megabytes
        self._is_below = False

    def check(self, free_bytes: int) -> None:
        """Raise OutOfResources when less is free than the settings ask for."""
        free = free_bytes // _MEGABYTE
        is_below = free_bytes < self._minimum * _MEGABYTE
        if is_below != self._is_below:
            self._is_below = is_below
            facts = {"free_megabytes": free, "minimum_free_megabytes": self._minimum}
            if is_below:
                log.error("disk nearly full: instances are refused until there is room", extra=facts)
            else:
                log.warning("disk has room again: instances are accepted", extra=facts)
        if is_below:
            raise OutOfResources(f"disk nearly full ({free} MB free of {self._minimum} needed); make room")

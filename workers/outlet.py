"""The archive as a worker needs it: whether it is there, and has room for a report."""

import logging

from dicom_node.archive.files import Archive

log = logging.getLogger(__name__)

#: An archive that does not take so much, or as much as the largest report so far, is called full.
_PROBE_BYTES = 1 << 20


class Outlet:
    """What is known of the archive that reports are written to."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._largest_report_bytes = _PROBE_BYTES
        #: Whether the archive failed, and did not take a probe since: no job is claimed.
        self.away = False

    def taken(self, size_bytes: int) -> None:
        """A report of this size is to be written, and others like it."""
        self._largest_report_bytes = max(self._largest_report_bytes, size_bytes)

    def failed(self) -> None:
        """Something went wrong with the archive: look whether it is the archive itself."""
        self.away = not self._takes()

    def is_back(self) -> bool:
        """Whether nothing is wrong with the archive, or not any more."""
        if self.away and self._takes():
            log.info("the archive is usable again")
            self.away = False
        return not self.away

    def _takes(self) -> bool:
        """Whether a study lies in the archive, and a report can be written."""
        try:
            self._archive.probe(self._largest_report_bytes)
            return self._archive.holds_studies()
        except OSError:
            return False

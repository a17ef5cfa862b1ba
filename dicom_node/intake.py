"""One received instance on its way in: check, file, index; only then may its sender be told that it is kept.

The file is on the disk before its row is in the index, and has a second name in the archive's incoming/ until the row
is there. A crash between the two leaves that name behind: the next start finds the file by it, without a look at any
other, and indexes it, though its sender got no success and sends again.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dicom_node.archive.file_meta import FileMeta
from dicom_node.archive.files import Archive, KeptFile
from dicom_node.archive.header import Header, read_header
from dicom_node.archive.spool import Spool
from dicom_node.archive.studies import Added, Studies
from dicom_node.core.errors import CannotUnderstand, DatasetMismatch, DuplicateInstance
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.core.study import Instance
from dicom_node.core.uid import is_uid
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

_OUTCOMES = {
    Added.NEW: (logging.DEBUG, "instance stored"),
    Added.IDENTICAL: (logging.DEBUG, "instance was already stored"),
    Added.CONFLICT: (logging.WARNING, "instance conflicts with a stored one; kept beside it"),
}


@dataclass(frozen=True, kw_only=True)
class IntakeRules:
    """What the settings leave open about what comes in."""

    #: Another content of a SOP Instance UID that is here is refused, not kept beside the first.
    refuses_conflicts: bool = False
    #: Calling AE title to the character set of the texts that come from there without one.
    character_sets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings) -> "IntakeRules":
        """As the settings say."""
        refuses = settings.admission.differing_content == "refuse"
        return cls(refuses_conflicts=refuses, character_sets=settings.character_sets)


class Intake:
    """Takes received instances into archive and index; safe to call from many associations' threads."""

    def __init__(
        self,
        *,
        archive: Archive,
        studies: Studies,
        clock: Callable[[], float] = time.time,
        rules: IntakeRules | None = None,
    ) -> None:
        self._rules = rules or IntakeRules()
        self._archive = archive
        self._studies = studies
        self._clock = clock

    def start(self) -> None:
        """No association of an earlier process is still open; before the first one, and in one process only."""
        self._studies.end_open_associations(self._clock())

    def store(self, received: ReceivedInstance) -> Added:
        """Check, file and index one instance.

        IntakeError with the status for its sender when it is not kept, OSError where the disk fails.
        """
        _check_command(received)
        character_set = self._rules.character_sets.get(received.calling_ae_title, "")
        header = read_header(received.data_set, received.transfer_syntax_uid, character_set)
        _check_header(header, received)
        kept, added = self._keep(received, header)
        level, message = _OUTCOMES[added]
        if log.isEnabledFor(level):
            log.log(level, message, extra=_facts(received, header, kept))
        return added

    def spool(self, announced: ReceivedInstance) -> Spool:
        """A file for the data set of an instance that comes in; OSError where the disk refuses it."""
        return self._archive.spool(_file_meta(announced))

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """An association is about to send its first instance."""
        self._studies.association_opened(association_id, calling_ae_title, self._clock())

    def association_ended(self, association_id: str, ending: str) -> None:
        """An association that sent instances is over; `ending` is released, aborted or lost."""
        self._studies.association_ended(association_id, ending, self._clock())

    def free_bytes(self) -> int:
        """Room left for instances."""
        return self._archive.free_bytes()

    def _keep(self, received: ReceivedInstance, header: Header) -> tuple[KeptFile, Added]:
        with self._archive.filing(header.study_instance_uid):
            kept = self._file(received, header)
            row = self._row(received, header, kept)
            try:
                added = self._studies.add_instance(
                    row,
                    received.association_id,
                    written=kept.written,
                    refuses_conflicts=self._rules.refuses_conflicts,
                )
            except DuplicateInstance:
                self._archive.withdraw(kept)
                raise
            self._archive.indexed(kept)
        return kept, added

    def _file(self, received: ReceivedInstance, header: Header) -> KeptFile:
        study_uid, series_uid = header.study_instance_uid, header.series_instance_uid
        return self._archive.store(received.data_set, _file_meta(received), study_uid=study_uid, series_uid=series_uid)

    def _row(self, received: ReceivedInstance, header: Header, kept: KeptFile) -> Instance:
        return Instance(
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            sop_instance_uid=received.sop_instance_uid,
            sop_class_uid=received.sop_class_uid,
            transfer_syntax_uid=received.transfer_syntax_uid,
            path=kept.path,
            size_bytes=kept.size_bytes,
            sha256=kept.sha256,
            received_at=self._clock(),
            calling_ae_title=received.calling_ae_title,
            attributes=header.attributes,
            searchable=header.searchable,
        )


def _file_meta(received: ReceivedInstance) -> FileMeta:
    return FileMeta(
        sop_class_uid=received.sop_class_uid,
        sop_instance_uid=received.sop_instance_uid,
        transfer_syntax_uid=received.transfer_syntax_uid,
        sending_ae_title=received.calling_ae_title,
        receiving_ae_title=received.called_ae_title,
    )


# The messages go to the sender as an Error Comment of 64 characters, so what is wrong comes first. They quote no value:
# what stands where a UID should be may be a name.
def _check_command(received: ReceivedInstance) -> None:
    announced = {"SOP Class": received.sop_class_uid, "SOP Instance": received.sop_instance_uid}
    for name, uid in announced.items():
        if not is_uid(uid):
            raise CannotUnderstand(f"Affected {name} UID is no UID; mend it at the sender")


def _check_header(header: Header, received: ReceivedInstance) -> None:
    for name, uid in (("Study", header.study_instance_uid), ("Series", header.series_instance_uid)):
        if not is_uid(uid):
            raise CannotUnderstand(f"{name} Instance UID is {'no UID' if uid else 'missing'}; mend it at the sender")
    # PS3.4 Annex B.2.3
    if header.sop_class_uid != received.sop_class_uid:
        raise DatasetMismatch("SOP Class UID of data set and command differ; mend the sender")
    if header.sop_instance_uid != received.sop_instance_uid:
        raise DatasetMismatch("SOP Instance UID of data set and command differ; mend the sender")


def _facts(received: ReceivedInstance, header: Header, kept: KeptFile) -> dict[str, object]:
    return {
        "study_instance_uid": header.study_instance_uid,
        "series_instance_uid": header.series_instance_uid,
        "sop_instance_uid": received.sop_instance_uid,
        "calling_ae_title": received.calling_ae_title,
        "association_id": received.association_id,
        "size_bytes": kept.size_bytes,
    }

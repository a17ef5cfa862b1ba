"""Where archive and index of a node lie, by its settings."""

from dataclasses import dataclass

from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexDamaged, SettingsError
from dicom_node.settings import Settings

#: The SQLite index in the data folder.
INDEX_FILE = "index.sqlite"


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """The archive and the index that belong together."""

    archive: Archive
    index: Index

    @classmethod
    def open(cls, settings: Settings) -> "Holdings":
        """Open both, making what is missing; SettingsError where that is not possible, IndexDamaged for one cause."""
        data_dir = settings.node.data_dir
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            archive = Archive(data_dir / "archive")
        except OSError as error:
            raise SettingsError(f"cannot write to {data_dir}: {error.strerror}; set data_dir of [node]") from error
        try:
            index = Index.open(index_url(settings))
        except (DatabaseError, ArgumentError, NoSuchModuleError, ImportError) as error:
            # SQLite says so where the file is no database any more; one that only cannot be reached is operational.
            if type(error) is DatabaseError and not settings.index.url:
                mend = "it can be made again from the archive's files: `dicom-node reindex`"
                raise IndexDamaged(f"the index {data_dir / INDEX_FILE} is damaged ({error.orig}); {mend}") from error
            where = "url of [index]" if settings.index.url else f"the SQLite index in {data_dir}"
            raise SettingsError(f"cannot open the index ({type(error).__name__}); correct {where}") from error
        return cls(archive=archive, index=index)


def index_url(settings: Settings) -> str:
    """The index's URL: as set, else SQLite in the data folder."""
    return settings.index.url or f"sqlite:///{settings.node.data_dir / INDEX_FILE}"

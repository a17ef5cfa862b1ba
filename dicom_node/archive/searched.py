"""The rows that studies and series are searched by: written in the transaction of the instance that begins them.

The first instance of a study or series speaks for it. A later one that says otherwise changes nothing: which of them
is right, the archive cannot know.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.prepared import Prepared, unless_there
from dicom_node.archive.search_tables import NAME_KEYS, name_column
from dicom_node.core.matching import normal_date, normal_time
from dicom_node.core.person_name import fuzzy_words, name_keys
from dicom_node.core.searchable import Level, Searchable, columns_of
from dicom_node.core.study import Attributes, Instance

#: An integer of a database is no longer.
_LARGEST = 2**31 - 1


class Searched:
    """Writes the rows of studies and series, unless they are there."""

    def __init__(self, tables: Mapping[str, sa.Table]) -> None:
        studies, series = tables["searched_studies"], tables["searched_series"]
        columns = (series.c.study_instance_uid, series.c.series_instance_uid)
        same = (columns[0] == sa.bindparam("study"), columns[1] == sa.bindparam("series"))
        self._series_of = Prepared(sa.select(columns[0]).where(*same))
        self._new_study = unless_there(studies, *studies.c.keys())
        self._new_series = unless_there(series, *series.c.keys())

    def add(self, connection: sa.Connection, instance: Instance, *, begins_study: bool) -> None:
        """An instance was taken in."""
        if begins_study:
            self.add_study(connection, instance.study_instance_uid, instance.attributes, instance.searchable)
        uids = (instance.study_instance_uid, instance.series_instance_uid)
        # Of nearly every instance the series is known, and to find that takes less than to write it in vain.
        if self._series_of(connection, study=uids[0], series=uids[1]).fetchone() is None:
            self.add_series(connection, *uids, instance.attributes, instance.searchable)

    def add_study(self, connection: sa.Connection, uid: str, attributes: Attributes, searchable: Attributes) -> None:
        """The row of a study, by the attributes of one of its instances."""
        values = searched_values(Level.STUDY, {**attributes, **searchable})
        self._new_study[connection.dialect.name](connection, study_instance_uid=uid, **values)

    def add_series(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        series_instance_uid: str,
        attributes: Attributes,
        searchable: Attributes,
        *,
        is_result: bool = False,
    ) -> None:
        """The row of a series, likewise."""
        uids = {"study_instance_uid": study_instance_uid, "series_instance_uid": series_instance_uid}
        values = searched_values(Level.SERIES, {**attributes, **searchable})
        self._new_series[connection.dialect.name](connection, **uids, is_result=is_result, **values)


def searched_values(level: Level, attributes: Attributes) -> dict[str, Any]:
    """The columns of a level by an instance's attributes; empty or None where it has none, or none that can be used."""
    values: dict[str, Any] = {}
    for attribute in columns_of(level):
        values.update(_columns(attribute, attributes.get(attribute.keyword)))
    return values


def _columns(attribute: Searchable, value: Any) -> Iterator[tuple[str, Any]]:
    keyword, vr = attribute.keyword, attribute.vr
    if vr == "IS":
        yield keyword, value if isinstance(value, int) and abs(value) <= _LARGEST else None
        return
    text = "\\".join(map(str, value)) if isinstance(value, tuple) else str(value or "")
    if vr in _NORMAL:
        text = _NORMAL[vr](text)
    yield keyword, text
    if vr == "PN":
        keys = (*name_keys(text), fuzzy_words(text)) if text else ("", "", "")
        yield from ((name_column(keyword, key), part) for key, part in zip(NAME_KEYS, keys, strict=True))


_NORMAL = {"DA": normal_date, "TM": normal_time}

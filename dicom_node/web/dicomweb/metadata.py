"""Metadata: every attribute of instances but their bulk values, made once for each series and kept compressed."""

import gzip
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import quote

from dicom_node.archive.contents import Content
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.json_model import Model, model_of
from dicom_node.web.dicomweb.pixel_place import PIXELS
from dicom_node.web.dicomweb.reading import Opened, Readings

#: Shorter binary values are written into the model.
INLINE_BYTES = 1024

#: Speed matters more than the last percent.
_LEVEL = 4

#: Of compressed models: several hundred series.
_MOST_BYTES = 64 << 20


def instance_address(root: str, content: Content) -> str:
    """The address of an instance; `root` is that of the service."""
    study, series, sop = content.study_instance_uid, content.series_instance_uid, content.sop_instance_uid
    return f"{root}/studies/{study}/series/{series}/instances/{sop}"


class Metadata:
    """Makes the models of instances, and remembers those of the series last asked for."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def model(self, content: Content, root: str) -> Model:
        """Of one instance; UnreadableInstance where its file is missing or damaged."""
        with self._readings.opened(content) as opened:
            return instance_model(opened, content, root)

    def compressed(self, contents: Sequence[Content], root: str, key: str) -> bytes:
        """The models of the instances of one series as gzipped JSON; `key` changes with every change of the series."""
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return known
        made = gzip.compress(encoded(self._readable(contents, root)), compresslevel=_LEVEL, mtime=0)
        self._keep(key, made)
        return made

    def _readable(self, contents: Sequence[Content], root: str) -> list[Model]:
        """One that cannot be read hides no other; UnreadableInstance where none can."""
        models: list[Model] = []
        for content in contents:
            try:
                models.append(self.model(content, root))
            except UnreadableInstance:
                if len(contents) == 1:
                    raise
        return models

    def _keep(self, key: str, made: bytes) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key], self._size = made, self._size + len(made)
            while self._size > _MOST_BYTES and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1])


def encoded(models: Sequence[Model]) -> bytes:
    """As JSON in UTF-8."""
    return json.dumps(models, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def instance_model(opened: Opened, content: Content, root: str) -> Model:
    """The model of an opened instance, with the addresses of its bulk values."""
    address = f"{instance_address(root, content)}/bulkdata"

    def bulk(path: tuple[str, ...], length: int) -> str | None:
        return f"{address}/{quote('/'.join(path))}" if length > INLINE_BYTES else None

    model = model_of(opened.ds, bulk)
    if opened.stopped_at in PIXELS and opened.length:
        vr = opened.vr if opened.vr.strip() else "OW"
        model[f"{opened.stopped_at:08X}"] = {"vr": vr, "BulkDataURI": f"{address}/{opened.stopped_at:08X}"}
    return model

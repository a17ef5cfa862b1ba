"""Classification: a bundle whose network says of a whole radiograph how likely something is; nothing is outlined."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.core.codes import Code
from dicom_node.core.errors import BundleInvalid, NotApplicable
from dicom_node.core.outcome import Statement
from workers.algorithms import Prepared, Reading
from workers.algorithms.meanings import classes_of
from workers.algorithms.network_output import Activation, activation_of, output_of
from workers.algorithms.stated_calibration import stated_calibration
from workers.bundles import CONFIGURATION, METADATA, Bundle
from workers.classifier import Classifier
from workers.network_run import NetworkRun
from workers.radiograph import load_radiograph
from workers.volume import Volume

#: What classes are called in codes.
_CONCEPTS: Mapping[str, Code] = {"pneumonia": Code("233604007", "SCT", "Pneumonia")}
#: Class names that say that there is nothing.
_NEGATIVE = frozenset({"background", "normal", "negative", "none"})
_USUAL_THRESHOLD = 0.5
#: Inputs as small as this show a reader nothing, so what is read from them is no matter of care.
_SMALL = 64


class Classification:
    """A network of radiographs (`network_def`, `preprocessing.size`) as an algorithm."""

    def __init__(self, bundle: Bundle, device: str, *, threads: int, beat: Callable[[str], None]) -> None:
        """Build the network; BundleInvalid names what the bundle lacks."""
        self.name = bundle.name
        network, parts = bundle.assembled()
        self.last_run = NetworkRun(network, device, threads=threads, beat=beat)
        self._side = _side(bundle)
        self._classifier = Classifier(
            self.last_run,
            self._side,
            softmax=activation_of(bundle, parts, output_of(bundle)) is Activation.SOFTMAX,
            calibration=stated_calibration(bundle),
        )
        self._classes = _classes(bundle)
        section = bundle.configuration.get("postprocessing")
        stated = section.get("report_threshold") if isinstance(section, Mapping) else None
        self._threshold = bundle.settings.report_threshold or float(stated or _USUAL_THRESHOLD)
        self._remarks = (
            f"Its maker says of the algorithm: {bundle.intended_use.rstrip('.')}.",
            *((f"Research only: the algorithm sees {self._side} x {self._side} pixels.",) if self._is_small else ()),
        )

    @property
    def _is_small(self) -> bool:
        return self._side <= _SMALL

    def load(self, paths: Sequence[Path]) -> Volume:
        """A series of one radiograph."""
        return load_radiograph(paths)

    def warm_up(self) -> None:
        """Run the network on nothing once."""
        self.probabilities(np.zeros((self._side, self._side), dtype=np.float32))
        self.last_run.seconds = 0.0

    def reads(self, volume: Volume) -> None:
        """Raise NotApplicable unless it is a radiograph."""
        if volume.is_placed:
            raise NotApplicable("the series is no radiograph")

    def prepare(self, volume: Volume) -> Prepared:
        """The middle square, as small as the network takes it."""
        self.reads(volume)
        return Prepared(voxels=self._classifier.prepared(volume.voxels[0]), where=np.ones((1, 1, 1), dtype=bool))

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """How likely each class is."""
        given = prepared or self.prepare(volume)
        statements = [
            self._statement(name, probability)
            for name, probability in zip(self._classes, self.probabilities(given.voxels), strict=True)
            if name.lower() not in _NEGATIVE
        ]
        return Reading(
            findings=(),
            labels=np.zeros(volume.voxels.shape, dtype=np.uint8),
            parameters=(("report threshold", f"{self._threshold:g}"),),
            statements=tuple(statements),
            further_remarks=self._remarks,
        )

    def probabilities(self, grey: NDArray[np.float32]) -> list[float]:
        """Calibrated probability of each class for a picture [j, i]."""
        found = [float(value) for value in self._classifier.probabilities(grey[None])[0]]
        if len(found) != len(self._classes):
            reason = (
                f"bundle {self.name}: the network gives {len(found)} classes, {METADATA} names {len(self._classes)}"
            )
            raise BundleInvalid(f"{reason}; correct channel_def")
        return found

    def _statement(self, name: str, probability: float) -> Statement:
        positive = probability >= self._threshold
        research = ", research only" if self._is_small else ""
        said = f"estimate {probability:.2f} of 0 to 1{research}; {'at or above' if positive else 'below'} the threshold"
        return Statement(
            concept=_CONCEPTS.get(name.lower()) or Code(f"class-{name}"[:16], "99DICOMNODE", name),
            text=f"{said} of {self._threshold:.2f}",
            is_positive=positive,
        )


def _side(bundle: Bundle) -> int:
    section = bundle.configuration.get("preprocessing")
    size = section.get("size") if isinstance(section, Mapping) else None
    if not isinstance(size, list) or len(size) != 2 or size[0] != size[1] or not isinstance(size[0], int):
        reason = f"bundle {bundle.name}: {CONFIGURATION} has no square preprocessing.size"
        raise BundleInvalid(f"{reason}; radiographs are classified as squares of the size that it names: add it")
    return int(size[0])


def _classes(bundle: Bundle) -> list[str]:
    names = classes_of(bundle, output_of(bundle))
    if not names:
        reason = f"bundle {bundle.name}: network_data_format does not say what its classes are"
        raise BundleInvalid(f"{reason}; add channel_def to its output in {METADATA}")
    return [names[number] for number in sorted(names)]

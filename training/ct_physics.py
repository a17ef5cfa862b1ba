"""What a scanner makes of an ideal volume: parenchymal texture, kernel blur and noise that follows attenuation."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

Array = NDArray[np.float32]

#: Blur of the reconstruction kernel within the slice, as the deviation of a Gaussian in mm.
KERNEL_SIGMA_MM = 0.55
#: Share of a wider blur that a sharp kernel takes away, for the overshoot at edges.
SHARPENING = 0.25
#: Noise deviation in HU behind a path of mean attenuation, for 2 mm slices.
BASE_NOISE_HU = 11.0
#: Share of the attenuation's exponent that reaches the noise; dose modulation takes the rest.
MODULATION = 0.42
#: Attenuation of water at the beam's effective energy, a mm.
WATER_PER_MM = 0.0195
#: Deviation of the texture of parenchyma that is too fine to be drawn as vessels, HU.
TEXTURE_HU = 20.0


def as_scanned(
    ideal: Array, lung_share: Array, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.int16]:
    """The volume [k, j, i] in whole HU as reconstructed; `ideal` is used up."""
    _, dy, dx = spacing_mm
    texture = correlated(rng, ideal.shape, tuple(1.3 / step for step in spacing_mm))
    texture *= np.float32(TEXTURE_HU)
    texture *= lung_share
    ideal += texture
    for k in range(len(ideal)):
        blurred = gaussian_filter(ideal[k], (KERNEL_SIGMA_MM / dy, KERNEL_SIGMA_MM / dx), truncate=3.0)
        wider = gaussian_filter(blurred, (1.1 / dy, 1.1 / dx), truncate=3.0)
        ideal[k] = blurred + SHARPENING * (blurred - wider) + noise(ideal[k], spacing_mm, rng)
    return np.clip(np.rint(ideal), -1024, 3071).astype(np.int16)


def correlated(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Array:
    """Gaussian noise of deviation 1 and a correlation length in voxels."""
    field = rng.standard_normal(shape, dtype=np.float32)
    for axis, width in enumerate(sigma):
        if width > 0.3:
            gaussian_filter1d(field, width, axis=axis, output=field, truncate=2.5)
    field /= np.float32(field.std())
    return field


def noise(hu: Array, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> Array:
    """Noise of one slice: fine-grained everywhere, and streaky across where rays pass much bone and muscle."""
    dz, dy, dx = spacing_mm
    attenuation = np.clip(hu / 1000 + 1, 0, None) * WATER_PER_MM
    across = attenuation.sum(axis=1) * dx
    down = attenuation.sum(axis=0) * dy
    lateral = np.exp(MODULATION * gaussian_filter1d(across, 8 / dy) / 2)[:, None]
    frontal = np.exp(MODULATION * gaussian_filter1d(down, 8 / dx) / 2)[None, :]
    grain = correlated(rng, hu.shape, (0.55 / dy, 0.55 / dx))
    grain -= np.float32(0.7) * gaussian_filter(grain, (1.6 / dy, 1.6 / dx), truncate=2.5)
    grain /= np.float32(grain.std())
    streak = correlated(rng, hu.shape, (0.6 / dy, 9.0 / dx))
    level = np.float32(BASE_NOISE_HU * np.sqrt(2.0 / dz))
    field: Array = level * (
        grain * np.sqrt(lateral**2 + frontal**2) / 2.4 + streak * np.maximum(lateral - 3.0, 0) * 0.35
    )
    return field.astype(np.float32)

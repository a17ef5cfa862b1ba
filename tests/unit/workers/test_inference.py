"""A network run window by window gives what it gives at once, and is not run where nothing is asked."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dicom_node.core.errors import OutOfDeviceMemory
from tests.bundles import little_bundle
from workers.bundles import Bundle, load_bundle
from workers.inference import CPU, Inference, check_device, chosen_device, window_multiple

SHAPE = (40, 72, 80)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(little_bundle(tmp_path_factory.mktemp("bundles") / "lung_nodule"))


@pytest.fixture(scope="module")
def voxels() -> NDArray[np.float32]:
    return np.random.default_rng(3).random(SHAPE, dtype=np.float32)


def everywhere() -> NDArray[np.bool_]:
    return np.ones(SHAPE, dtype=bool)


def test_probabilities_are_those_of_the_bundles_own_inferer(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    with torch.inference_mode():
        network = bundle.network()
        expected = bundle.inferer()(torch.from_numpy(voxels)[None, None], lambda window: torch.sigmoid(network(window)))
    found = Inference(bundle, "cpu").probability(voxels, everywhere())

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5)


def test_windows_away_from_the_mask_are_not_run_and_the_others_do_not_change(
    bundle: Bundle, voxels: NDArray[np.float32]
) -> None:
    where = np.zeros(SHAPE, dtype=bool)
    where[0, 0, 0] = where[-1, -1, -1] = True
    where[2:8, 4:20, 6:20] = True
    inference = Inference(bundle, "cpu")
    run = []
    inference._network.register_forward_hook(lambda module, inputs, output: run.append(len(inputs[0])))
    everything = inference.probability(voxels, everywhere())
    all_windows = sum(run)
    run.clear()
    found = inference.probability(voxels, where)

    np.testing.assert_allclose(found[where], everything[where], atol=1e-6)
    assert 0 < sum(run) <= all_windows // 4


def test_nothing_asked_runs_nothing(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    assert not Inference(bundle, "cpu").probability(voxels, np.zeros(SHAPE, dtype=bool)).any()


def test_a_second_volume_is_read_as_the_first_was(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    inference = Inference(bundle, "cpu")
    first = inference.probability(voxels, everywhere())
    inference.probability(1 - voxels, everywhere())

    np.testing.assert_array_equal(inference.probability(voxels, everywhere()), first)


def test_a_device_without_memory_is_an_error_that_may_be_tried_again(
    bundle: Bundle, voxels: NDArray[np.float32]
) -> None:
    inference = Inference(bundle, "cpu")

    def exhausted(module: torch.nn.Module, inputs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    inference._network.register_forward_pre_hook(exhausted)
    with pytest.raises(OutOfDeviceMemory) as refused:
        inference.probability(voxels, everywhere())
    assert refused.value.retryable


def test_the_device_is_a_gpu_only_where_there_is_one() -> None:
    assert chosen_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert chosen_device("cpu").type == "cpu"


def failing(inference: Inference, error: Exception) -> Inference:
    """The same, whose network raises an error."""

    def fail(module: torch.nn.Module, inputs: object) -> None:
        raise error

    inference._network.register_forward_pre_hook(fail)
    return inference


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    ],
)
def test_a_cpu_without_memory_is_an_error_that_may_be_tried_again(
    bundle: Bundle, voxels: NDArray[np.float32], words: str
) -> None:
    with pytest.raises(OutOfDeviceMemory):
        failing(Inference(bundle, "cpu"), RuntimeError(words)).probability(voxels, everywhere())


def test_another_fault_of_the_device_keeps_its_name(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        failing(Inference(bundle, "cpu"), RuntimeError("CUDA error: an illegal memory access")).probability(
            voxels, everywhere()
        )


def test_the_seconds_are_those_of_the_last_run_alone(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    inference = Inference(bundle, "cpu")
    inference.probability(voxels, everywhere())
    assert inference.seconds > 0
    inference.probability(voxels, np.zeros(SHAPE, dtype=bool))
    assert inference.seconds == 0


def test_warming_up_runs_the_network_and_counts_for_no_patient(bundle: Bundle) -> None:
    inference = Inference(bundle, "cpu")
    run = []
    inference._network.register_forward_hook(lambda module, inputs, output: run.append(tuple(inputs[0].shape)))
    inference.warm_up()
    assert run == [(1, 1, 16, 32, 32)]
    assert inference.seconds == 0


def least_memory(inference: Inference, voxels: int) -> list[tuple[int, ...]]:
    """Let the network have memory for no more than so many voxels at once; returns the windows that it ran."""
    run: list[tuple[int, ...]] = []

    def measure(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        window = inputs[0]
        if window.numel() > voxels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        run.append(tuple(window.shape[2:]))

    inference._network.register_forward_pre_hook(measure)
    return run


def test_too_little_memory_for_the_bundles_window_is_met_by_smaller_ones(
    bundle: Bundle, voxels: NDArray[np.float32]
) -> None:
    whole = Inference(bundle, "cpu").probability(voxels, everywhere())
    inference = Inference(bundle, "cpu")
    run = least_memory(inference, 8 * 16 * 16)
    found = inference.probability(voxels, everywhere())

    assert set(run) == {(8, 16, 16)}
    assert inference.concession == "in windows of 8 x 16 x 16 voxels on the CPU"
    assert inference.seconds > 0
    # Random weights: how those that ship agree in a real lung, tests/integration/test_little_memory.py says.
    assert np.corrcoef(found.ravel(), whole.ravel())[0, 1] > 0.9


def test_the_next_run_begins_with_the_bundles_window_again(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    inference = Inference(bundle, "cpu")
    whole = inference.probability(voxels, everywhere())
    short = True

    def sometimes(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if short and inputs[0].numel() > 8 * 16 * 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    inference._network.register_forward_pre_hook(sometimes)
    inference.probability(voxels, everywhere())
    assert inference.concession
    short = False
    np.testing.assert_array_equal(inference.probability(voxels, everywhere()), whole)
    assert inference.concession == ""


def test_windows_of_less_than_the_network_takes_are_not_tried(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    inference = Inference(bundle, "cpu")
    run = least_memory(inference, 8 * 16 * 16 - 1)
    with pytest.raises(OutOfDeviceMemory, match="free some or add some"):
        inference.probability(voxels, everywhere())
    assert run == []


def test_a_device_without_memory_for_any_window_gives_way_to_the_cpu(
    bundle: Bundle, voxels: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is one that computes nothing; how often it is asked, and that the CPU does the work, is real."""
    inference = Inference(bundle, "cpu")
    whole = inference.probability(voxels, everywhere())
    inference.device = torch.device("meta")
    asked: list[str] = []
    run = inference._run

    def without_memory(step: Any, *arrays: NDArray[Any]) -> NDArray[np.float32]:
        asked.append(f"{step.device} {step.concession}".strip())
        if step.device != CPU:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(step, *arrays)

    monkeypatch.setattr(inference, "_run", without_memory)
    found = inference.probability(voxels, everywhere())
    assert asked == ["meta", "meta", "meta in windows of 8 x 16 x 16 voxels", "cpu on the CPU"]
    assert inference.concession == "on the CPU"
    np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "multiple"),
    [(["8*n", "16*n", "8 * n"], 16), ([96, 96, 96], 32), (["*", "2**p"], 32), ([], 32)],
)
def test_windows_are_multiples_of_what_the_bundle_says_or_of_what_is_usual(shape: list[object], multiple: int) -> None:
    metadata = {"network_data_format": {"inputs": {"image": {"spatial_shape": shape}}}}
    assert window_multiple(metadata) == multiple


def test_a_bundle_that_says_nothing_of_its_input_has_the_usual_multiple() -> None:
    assert window_multiple({}) == 32


def test_each_window_is_a_beat_and_a_beat_may_end_the_run(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    class Enough(Exception):
        pass

    beats: list[str] = []

    def beat(step: str) -> None:
        beats.append(step)
        if len(beats) == 5:
            raise Enough

    inference = Inference(bundle, "cpu", beat=beat)
    with pytest.raises(Enough):
        inference.probability(voxels, everywhere())
    assert beats == ["network"] * 5


def test_a_device_is_checked_by_computing_on_it() -> None:
    check_device(CPU)
    with pytest.raises((RuntimeError, NotImplementedError)):
        check_device(torch.device("meta"))


def test_an_opinion_of_a_piece_is_the_networks_own_and_leaves_no_trace(
    bundle: Bundle, voxels: NDArray[np.float32]
) -> None:
    """What the last run took, and how, is told of the run and not of what was looked at again."""
    beats: list[str] = []
    inference = Inference(bundle, "cpu", beat=beats.append)
    inference.probability(voxels, everywhere())
    told, so_far = (inference.seconds, inference.concession), len(beats)
    # 4 is what the network takes a multiple of: the edges of 13 x 18 x 20 are held, and cut off again.
    piece = voxels[5:18, 10:28, 20:40]
    opinion = inference.opinion(piece)
    with torch.inference_mode():
        held = np.pad(piece, ((0, 3), (0, 2), (0, 0)), mode="edge")
        expected = torch.sigmoid(bundle.network()(torch.from_numpy(held)[None, None]))[0, 0].numpy()

    assert opinion.shape == piece.shape
    np.testing.assert_allclose(opinion, expected[:13, :18, :20], atol=1e-5)
    assert (inference.seconds, inference.concession) == told
    assert beats[so_far:] == ["network"]


def test_an_opinion_for_which_there_is_no_memory_says_so(bundle: Bundle, voxels: NDArray[np.float32]) -> None:
    inference = Inference(bundle, "cpu")

    def exhausted(module: torch.nn.Module, inputs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    inference._network.register_forward_pre_hook(exhausted)
    with pytest.raises(OutOfDeviceMemory, match="piece"):
        inference.opinion(voxels[:8, :8, :8])

"""Networks that vote: in evaluation all are heard, in training each learns alone."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dicom_node.core.errors import BundleInvalid
from tests.zoo_bundles import SPLEEN_METADATA, published, with_weights
from workers.bundles import WEIGHTS, load_bundle
from workers.ensemble import Ensemble


class Slope(nn.Module):
    """The mean of the right half less that of the left, as a logit, times a weight that is its own."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Slope.made += 1
        self.weight = nn.Parameter(torch.tensor(float(Slope.made)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        half = pictures.shape[-1] // 2
        right, left = pictures[..., half:].mean(dim=(1, 2, 3)), pictures[..., :half].mean(dim=(1, 2, 3))
        return (self.weight * (right - left))[:, None]


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def test_in_evaluation_the_answer_is_the_mean_probability_of_all(pictures: torch.Tensor) -> None:
    ensemble = Ensemble(Slope, 3).eval()
    expected = torch.stack([torch.sigmoid(member(pictures)) for member in ensemble.members]).mean(dim=0)
    torch.testing.assert_close(torch.sigmoid(ensemble(pictures)), expected)


def test_in_training_each_member_learns_from_its_own_share_alone(pictures: torch.Tensor) -> None:
    ensemble = Ensemble(Slope, 3).train()
    said = ensemble(pictures)
    first, second, third = ensemble.members
    torch.testing.assert_close(said, torch.cat([first(pictures[:2]), second(pictures[2:4]), third(pictures[4:])]))
    said[2:4].sum().backward()
    assert second.weight.grad is not None
    assert second.weight.grad != 0
    assert first.weight.grad in (None, 0)


def test_what_may_lie_on_either_side_is_the_same_in_the_mirror(pictures: torch.Tensor) -> None:
    plain, mirrored = Ensemble(Slope, 2).eval(), Ensemble(Slope, 2, mirrored=True).eval()
    assert (plain(pictures) - plain(pictures.flip(-1))).abs().min() > 1e-3
    torch.testing.assert_close(mirrored(pictures), mirrored(pictures.flip(-1)))


def test_a_standardised_picture_may_be_darker_and_flatter(pictures: torch.Tensor) -> None:
    plain, standardised = Ensemble(Slope, 2).eval(), Ensemble(Slope, 2, standardised=True).eval()
    other = 0.2 + 0.5 * pictures
    assert (plain(pictures) - plain(other)).abs().max() > 1e-2
    torch.testing.assert_close(standardised(pictures), standardised(other), atol=1e-3, rtol=1e-3)
    assert torch.isfinite(standardised(torch.full((1, 1, 8, 8), 0.5))).all()


def test_nobody_is_no_ensemble() -> None:
    with pytest.raises(ValueError, match="one or more"):
        Ensemble(Slope, 0)


def described(member: str) -> dict[str, object]:
    return {
        "network_def": {
            "_target_": "workers.ensemble.Ensemble",
            "count": 2,
            "member": {
                "_target_": member,
                "_mode_": "callable",
                "in_shape": [1, 28, 28],
                "classes": 1,
                "channels": [2],
                "strides": [2],
            },
        }
    }


def test_a_bundle_may_describe_an_ensemble_of_networks_that_compute(tmp_path: Path) -> None:
    bundle = with_weights(published(tmp_path / "votes", SPLEEN_METADATA, described("Classifier")))
    network = bundle.network()

    assert isinstance(network, Ensemble)
    first, second = network.members
    pictures = torch.rand(1, 1, 28, 28)
    assert not torch.equal(first(pictures), second(pictures))


def test_a_member_that_does_not_compute_is_refused(tmp_path: Path) -> None:
    folder = published(tmp_path / "votes", SPLEEN_METADATA, described("os.system"))
    (folder / WEIGHTS).touch()
    with pytest.raises(BundleInvalid, match=r"os\.system"):
        load_bundle(folder).network()

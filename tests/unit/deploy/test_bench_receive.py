from pathlib import Path

import pytest

from deploy import bench_receive
from deploy.bench_receive import FREE_SENDER, STORESCU, WORKLOADS, Ratio, goal_of, ratios_of

SAID = """ct     node               210.1/s  refused 0
median ct     node               210.1/s
median ct     storescp+sync      300.2/s   node/storescp+sync  0.70 (0.61-0.82)
median ct8    orthanc            100.0/s   node/orthanc  4.20 (3.90-4.40)
"""


def test_the_ratios_are_read_from_what_the_comparison_says() -> None:
    assert list(ratios_of(SAID.splitlines())) == [
        Ratio(workload="ct", peer="storescp+sync", median=0.70, lowest=0.61, highest=0.82),
        Ratio(workload="ct8", peer="orthanc", median=4.20, lowest=3.90, highest=4.40),
    ]


@pytest.mark.parametrize(
    ("workload", "peer", "goal"),
    [("ct", "orthanc", 2.0), ("ct8", "orthanc", 4.0), ("big", "storescp+sync", 0.9), ("ct", "storescp", None)],
)
def test_each_peer_has_its_goals(workload: str, peer: str, goal: float | None) -> None:
    ratio = Ratio(workload=workload, peer=peer, median=1.0, lowest=1.0, highest=1.0)
    assert goal_of(ratio, FREE_SENDER) == goal
    assert all(name in WORKLOADS for each in (*FREE_SENDER, *STORESCU) for name in each.workloads)


def test_where_the_comparison_is_absent_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_receive, "COMPARISON", tmp_path / "compare_receivers.py")
    assert bench_receive.main([]) == 0
    assert "not measured" in capsys.readouterr().out

from __future__ import annotations

import os

import pytest
from benchmarks import soak


def rounds(*memory: float, descriptors: float = 100.0) -> list[soak.Sample]:
    return [
        {
            "memory": {"gcs_server": 40.0, "ray::SupervisorActor": value},
            "descriptors": {"gcs_server": descriptors},
            "threads": {"gcs_server": 30.0},
            "processes": {"gcs_server": 1.0},
        }
        for value in memory
    ]


def test_what_stays_flat_after_the_warm_up_is_fine() -> None:
    assert soak.complaints(rounds(50, 150, 300, 301, 299, 303, 298, 302, 300)) == []


def test_what_grows_is_told_with_the_processes_it_grows_in() -> None:
    (complaint,) = soak.complaints(rounds(*range(100, 400, 20)))
    assert complaint.startswith("memory grew from ")
    assert complaint.endswith(": ray::SupervisorActor +100.0 MB")


def test_a_leak_of_descriptors_is_told() -> None:
    samples = [each for count in range(100, 280, 20) for each in rounds(100, descriptors=count)]
    (complaint,) = soak.complaints(samples)
    assert complaint == "descriptors grew from 180.0 to 240.0 in 6 rounds: gcs_server +60.0"


def test_few_rounds_tell_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        soak.complaints(rounds(1, 2, 3))


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (b"ray::SupervisorActor.run_session\0\0", "ray::SupervisorActor"),
        (b"/usr/bin/gcs_server\0--log_dir=/tmp\0", "gcs_server"),
        (
            b"/usr/bin/python\0-P\0-m\0antiphon_actors.fork_server\0/tmp/x\0",
            "antiphon_actors.fork_server",
        ),
        (b"/usr/bin/python\0-I\0/src/_janitor.py\0{}\0", "_janitor.py"),
        (b"", "?"),
    ],
)
def test_processes_are_told_apart(command: bytes, kind: str) -> None:
    assert soak.kind_of(command) == kind


def test_counts_what_is_below_a_process() -> None:
    sample = soak.take_sample(os.getppid())
    for what in soak.LIMITS:
        assert sum(sample[what].values()) >= 1

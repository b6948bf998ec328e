import numpy as np
import pytest

from toontalker_jax.evaluation.protocols import self_reconstruction, transfer_recovery


def case(brighter):
    """The truth is `brighter` than the source everywhere; the driver shows by how much."""
    source = np.full((4, 4, 3), 100, np.uint8)
    driving = np.full((2, 4, 4, 3), brighter, np.uint8)
    return {"source": source, "reference": np.zeros_like(source), "driving": driving, "truth": source + driving}


def half_of_the_change(source, reference, driving):
    return (source + (driving - reference) // 2).astype(np.uint8)


def at_most_20(source, reference, driving):
    return (source + np.minimum(driving - reference, 20)).astype(np.uint8)


def test_recovery_is_averaged_over_cases():
    assert transfer_recovery(half_of_the_change, [case(20), case(80)])["mean"] == pytest.approx(0.5)
    result = transfer_recovery(at_most_20, iter([case(20), case(80)]))
    assert result["per_case"] == pytest.approx([1, 0.25])
    assert result["mean"] == pytest.approx(0.625)
    assert result["count"] == 2


def test_a_case_without_motion_is_listed_but_not_averaged():
    result = transfer_recovery(at_most_20, [case(0), case(80)])
    assert result["per_case"] == [None, pytest.approx(0.25)]
    assert (result["mean"], result["count"]) == (pytest.approx(0.25), 1)
    for cases in ([], [case(0)]):
        with pytest.raises(ValueError, match=f"{len(cases)} cases"):
            transfer_recovery(at_most_20, cases)


class Brightener:
    """Stands in for a Reenactor: every frame comes back 51 levels brighter, two frames late as batches are."""

    def __init__(self, motion="absolute"):
        self.motion = motion
        self.sources = []

    def prepare(self, source):
        self.sources.append(source)

    def frames(self, driving):
        waiting = []
        for frame in driving:
            waiting.append(frame + np.uint8(51))
            if len(waiting) > 2:
                yield waiting.pop(0)
        yield from waiting


def video(*levels):
    return (np.full((4, 4, 3), level, np.uint8) for level in levels)


def test_the_first_frame_drives_all_the_first_included():
    reenactor = Brightener()
    result = self_reconstruction(reenactor, [video(0, 51, 102, 153), video(51, 0)])
    assert [source[0, 0, 0] for source in reenactor.sources] == [0, 51]
    assert result["l1"] == {"over_frames": pytest.approx(0.2), "over_videos": pytest.approx(0.2)}
    # Standing still: 0, 0.2, 0.4, 0.6 in the first video, 0 and 0.2 in the second.
    assert result["copy_source_l1"] == {"over_frames": pytest.approx(1.4 / 6), "over_videos": pytest.approx(0.2)}
    assert (result["frames"], result["videos"]) == (6, 2)


def test_what_is_not_the_protocol_is_refused():
    with pytest.raises(ValueError, match="absolute"):
        self_reconstruction(Brightener("relative"), [video(0)])
    with pytest.raises(ValueError, match="video 2 has no frames"):
        self_reconstruction(Brightener(), [video(0), video()])

"""Following a face through a video and the steady box around it: `faces.follow` and `faces.steady_box`."""

import numpy as np
import pytest

from data_pipelines import detectors, faces, puppets
from data_pipelines.faces import Box


def follow(looks, every=1):
    """Follows what a detector finds in numbered frames: looks[n] is the list for frame n."""
    frames = (np.full((1, 1, 3), n, np.uint8) for n in range(len(looks)))
    return faces.follow(frames, lambda frame: looks[frame[0, 0, 0]], every)


def face(x, y=200, side=100):
    return Box(x, y, side, side)


def test_follow_looks_at_every_kth_frame_and_skips_those_without_a_face():
    looks = [[face(10 * n)] for n in range(11)]
    looks[6] = []
    assert follow(looks, 3) == [face(0), face(30), face(90)]
    assert follow([[]] * 4) == [] and follow([]) == []
    with pytest.raises(faces.FaceError, match="every is 0"):
        follow([], 0)


def test_follow_stays_with_the_first_face_when_others_are_larger_for_a_while():
    people = [[face(100 + n), face(600 - n, side=80)] for n in range(20)]
    for look in people[5:8]:
        look[1] = look[1]._replace(width=110, height=110)
        look.sort(key=lambda box: -box.width)
    assert follow(people) == [face(100 + n) for n in range(20)]


def test_the_face_that_comes_first_most_often_wins():
    one, other = face(100), face(600)
    assert follow([[one, other], [other, one], [other, one]]) == [other] * 3


def test_follow_keeps_neighbours_apart():
    one, other = face(300), face(390)  # Within reach of each other
    assert follow([[one, other]] * 6 + [[other]] * 2) == [one] * 6
    assert follow([[one]] * 3 + [[one, other]] * 6) == [one] * 9
    assert follow([[one, one]] * 4) == [one] * 4  # Found twice


def test_follow_leaves_out_what_is_taken_for_a_face_now_and_then():
    looks = [[face(300 + 5 * n)] for n in range(30)]
    for n in (0, 7, 8, 20):
        looks[n].insert(0, face(900 - 40 * n, 20, 250))  # Larger, so it comes first.
    looks[12] = [face(50)]  # Instead of the face
    looks[13] = [face(310, 210, 30)]  # Within the face, where it was not found
    assert follow(looks) == [face(300 + 5 * n) for n in range(30) if n not in (12, 13)]


def test_one_false_box_within_reach_does_not_lead_astray():
    looks = [[face(300)] for _ in range(12)]
    looks[4] = [face(390)]
    for look in looks[5:]:
        look[0] = face(280)  # Out of reach of the false one.
    found = follow(looks)
    assert len(found) == 12 and found[5:] == [face(280)] * 7


def test_follow_finds_a_face_again_that_was_lost_while_it_moved():
    looks = [[face(100)]] * 4 + [[]] * 3 + [[face(320)]] * 3
    assert follow(looks) == [face(100)] * 4 + [face(320)] * 3


def test_steady_box_of_a_face_at_rest():
    assert faces.steady_box([face(500, 300)] * 9, 1000, 1200) == Box(455, 245, 190, 190)
    assert faces.steady_box([face(500, 300)], 1000, 1200, scale=3) == Box(400, 190, 300, 300)
    # A tall face's box, as YuNet gives it, has the side of the square of its area.
    assert faces.steady_box([Box(500, 300, 80, 125)], 1000, 1200, scale=1) == Box(490, 302, 100, 100)


def test_steady_box_stays_in_the_picture_and_square():
    assert faces.steady_box([face(10, 0)], 400, 600) == Box(0, 0, 190, 190)
    assert faces.steady_box([face(500, 300)], 400, 600) == Box(410, 210, 190, 190)
    assert faces.steady_box([face(200, 100, 250)], 400, 600) == Box(125, 0, 400, 400)
    assert faces.steady_box([Box(-40, -60, 300, 320)], 200, 180) == Box(0, 0, 180, 180)


def test_steady_box_holds_a_moving_head():
    xs = np.rint(500 + 90 * np.sin(np.linspace(0, 6 * np.pi, 60))).astype(int)
    box = faces.steady_box([face(int(x), 300) for x in xs], 1000, 1200)
    # The whole head, 1.5 faces wide, except for the ends of the way, which hold 5 % of the looks each.
    assert box.x <= 412 - 25 and box.x + box.width >= 688 + 25 and box.width == box.height < 335
    # What moves less than the frame has room for enlarges nothing; what does so rarely moves the box only a little.
    rarely = [face(500, 300)] * 16 + [face(535, 300)] * 4
    assert faces.steady_box(rarely, 1000, 1200) == Box(470, 245, 190, 190)


def test_a_way_longer_than_the_picture_has_room_for_is_held_where_the_face_is_most_often():
    assert faces.steady_box([face(500, 50)] * 6 + [face(0, 50)] * 4, 200, 1000) == Box(450, 0, 200, 200)


def test_steady_box_holds_a_head_that_comes_closer():
    box = faces.steady_box([face(500, 300)] * 6 + [face(450, 250, 200)] * 5, 1000, 1200)
    assert box == Box(400, 180, 300, 300)


def test_a_single_outlier_does_not_move_the_steady_box():
    still = [face(500, 300)] * 40
    for outlier in (face(20, 900), face(20, 600, 300)):
        assert faces.steady_box([*still, outlier], 1000, 1200) == faces.steady_box(still, 1000, 1200)
    sizes = [face(500, 300)] * 3 + [face(490, 290, 120)] * 2
    assert faces.steady_box(sizes, 1000, 1200).width == 190


def test_no_face_says_what_to_pass():
    with pytest.raises(faces.FaceError, match=r"^a.mp4: no face found: pass --driving_crop=x,y,.*=none.*--detector$"):
        faces.steady_box([], 10, 10, name="a.mp4", flag="--driving_crop")
    for scale in (0.9, float("nan")):
        with pytest.raises(faces.FaceError, match=f"scale is {scale}"):
            faces.steady_box([face(1)], 10, 10, scale=scale)


def test_one_steady_box_holds_a_puppet_that_moves_over_a_video():
    motion = puppets.sample_motion("real", "train", 0, 0, 1)[0]
    size, picture = 160, puppets.render(puppets.sample_identity("real", "train", 0, 0), motion, 160)
    places = [(int(240 + 60 * np.sin(n)), int(90 + 20 * np.cos(n))) for n in range(12)]
    frames = np.full((12, 360, 640, 3), 90, np.uint8)
    for frame, (x, y) in zip(frames, places, strict=True):
        frame[y : y + size, x : x + size] = picture
    found = faces.follow(frames, detectors.open_detector(), every=2)
    box = faces.steady_box(found, 360, 640)
    assert len(found) == 6
    assert box.width == box.height < 330  # A head of 192 that moves by 120; measured 303.
    left, right = min(x for x, _ in places[::2]), max(x for x, _ in places[::2]) + size
    # The puppet's own picture leaves about 15 % of air beside its head.
    assert box.x <= left + 0.15 * size and box.x + box.width >= right - 0.15 * size

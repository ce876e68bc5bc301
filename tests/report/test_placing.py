from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.report.placing import Spot, place

FRAME = (600.0, 300.0)
INSIDE = st.tuples(st.floats(10, 590), st.floats(10, 290))


def box(spot, placed):
    """Return where a label stands, measured with letters as wide as the browser's are at most."""
    left = spot.across + placed.across - 5 * len(placed.text) * placed.nearest
    return left, spot.up + placed.up - 5, left + 5 * len(placed.text), spot.up + placed.up + 5


def overlap(one, two):
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


@settings(max_examples=40)
@given(st.lists(INSIDE, min_size=1, max_size=20))
def test_twenty_labels_stand_inside_and_none_covers_another(places):
    spots = [
        Spot(x, y, y - 8, y + 8, (f"{at} {'long name ' * 3}", str(at)) if at < 5 else (str(at),))
        for at, (x, y) in enumerate(places)
    ]

    boxes = [box(spot, placed) for spot, placed in zip(spots, place(spots, FRAME), strict=True)]

    for at, one in enumerate(boxes):
        assert one[0] >= 0
        assert one[2] <= FRAME[0]
        assert not any(overlap(one, two) for two in boxes[at + 1 :])


def test_a_name_that_has_no_room_gives_way_to_its_number():
    spot = Spot(10, 10, 5, 15, ("3 a very long name", "3"))

    assert place([spot], (60, 40))[0].text == "3"


def test_a_label_keeps_away_from_a_line():
    spot = Spot(100, 50, 40, 60, ("1 name",))

    free = place([spot], (300, 100))[0]
    crossed = place([spot], (300, 100), [(100, 49, 300, 51)])[0]

    assert (free.across > 0, free.up) == (True, 0)
    assert crossed.across < 0


def test_a_label_away_from_its_point_has_a_line_to_it():
    crowd = [Spot(100, 100, 90, 110, (str(at),)) for at in range(12)]

    placed = place(crowd, (200, 200))

    assert not placed[0].far
    assert placed[-1].far

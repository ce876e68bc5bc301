"""What a run keeps to show why: read as it was written, and no foreign address."""

import pytest

from regraft.errors import RunError
from regraft.files import read_json, write_json
from regraft.results.inspection import FOLDER, InspectedImage, Inspection, Near

WHOLE = Inspection(
    images={"a\udcff.jpg": InspectedImage(nearest=(Near("=b.jpg", "rose", 0.25),))},
    sheet="data:image/jpeg;base64,AAAA",
    sheet_paths=("a\udcff", "b", "c"),
    columns=2,
)


def test_it_is_read_as_it_was_written(tmp_path):
    WHOLE.write(tmp_path)

    found = Inspection.read(tmp_path)

    assert found == WHOLE
    assert found.rows == 2
    assert [found.place(path) for path in ("a\udcff", "c", "z")] == [(0, 0), (0, 1), None]
    assert Inspection.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("sheet", ["https://example.org/a.png", 'data:image/png;base64,A");}', "x"])
def test_what_is_no_image_address_is_refused(tmp_path, sheet):
    WHOLE.write(tmp_path)
    file = tmp_path / FOLDER / "inspection.json"
    write_json(file, read_json(file) | {"sheet": sheet})

    with pytest.raises(RunError):
        Inspection.read(tmp_path)

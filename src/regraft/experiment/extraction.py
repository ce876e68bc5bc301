"""Features of a whole data set into one HDF5 file."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from regraft.experiment.preparation import DataPlan
from regraft.features.extractor import FeatureExtractor
from regraft.features.hdf5 import refuse_existing, write_features


@dataclass(frozen=True)
class Extraction:
    """What was written.

    Attributes:
        file: The HDF5 file.
        images: Its rows, one per picture.
        columns: Numbers per row.
        embedded: How many pictures passed through the trunk; the others were cached.
        seconds: How long it took.
    """

    file: str
    images: int
    columns: int
    embedded: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return asdict(self)


def extract_to_file(
    plan: DataPlan, extractor: FeatureExtractor, file: str | os.PathLike[str]
) -> Extraction:
    """Write the features of all pictures of a plan, in blocks, so that memory stays flat.

    Args:
        plan: Which pictures; its split is not used.
        extractor: What turns pictures into rows.
        file: An HDF5 file that does not exist yet.

    Raises:
        DataError: The pictures cannot be used, or the file exists.
    """
    refuse_existing(file)
    data = plan.read()
    embedded = extractor.fit(data.paths).stream(data.paths)
    write_features(file, embedded, data.labels, classes=data.classes)
    stats = embedded.stats
    return Extraction(
        os.fspath(file), stats.images, embedded.shape[1], stats.embedded, round(stats.seconds, 3)
    )

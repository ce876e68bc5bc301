"""The data sets that have a name here: what they are, where they lie, and what is wrong with them.

Addresses, sizes and checksums are those of the publishers or, where these give none, the ones that
widely used tools check against (TensorFlow Datasets, torchvision).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from regraft.data.labels import list_names
from regraft.data.layouts import (
    ClassFolders,
    LabelFiles,
    Layout,
    LeafFolders,
    NamePrefixes,
    NumberRanges,
)
from regraft.data.oxford import FLOWERS_17, FLOWERS_102
from regraft.download import Checksums
from regraft.errors import UsageError

_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/flowers"
_NO_LICENCE = "none is stated: for your own use, not to be passed on"
_KAGGLE = "see its page on Kaggle"


@dataclass(frozen=True)
class RemoteFile:
    """A file as it is published.

    Args:
        url: Its address.
        checksums: What is known of its content.
        name: Its name; by default the end of the address.

    Example:
        >>> RemoteFile("https://example.org/a/flowers.zip").name
        'flowers.zip'
    """

    url: str
    checksums: Checksums = field(default_factory=Checksums)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", urlsplit(self.url).path.rpartition("/")[2])


@dataclass(frozen=True, kw_only=True)
class NamedData:
    """A data set with a name.

    Args:
        name: The name.
        title: What it shows, in a few words.
        classes: How many classes.
        pictures: How many pictures are published.
        licence: What is known of the licence.
        citation: Whom to cite.
        page: Where its publisher describes it.
        files: What has to be downloaded; () where only a person with a login gets it.
        layout: How it is published.
        inner: Archives within the archive that hold the pictures.
        known: What a reader of its results should know, one sentence each.

    Example:
        >>> find_data("flowers17").pictures
        1360
    """

    name: str
    title: str
    classes: int
    pictures: int
    licence: str
    citation: str
    page: str
    files: tuple[RemoteFile, ...] = ()
    layout: Layout
    inner: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to download, as far as they are published; 0: unknown or not to be downloaded."""
        return sum(file.checksums.size for file in self.files)


def find_data(name: str) -> NamedData:
    """Return the data set of a name.

    Raises:
        UsageError: ``DATA-UNKNOWN``: there is none; the nearest names are given.

    Example:
        >>> find_data("flowers_17")
        Traceback (most recent call last):
        regraft.errors.UsageError: no data set is named 'flowers_17' - did you mean flowers17...
    """
    by_name = {data.name: data for data in NAMED}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
    raise UsageError(
        f"no data set is named {name!r:.100}",
        why=f"did you mean {list_names(near)}?" if near else f"there are {list_names(by_name)}",
        hint="`regraft data fetch` lists them; a folder of your own needs no name",
        code="DATA-UNKNOWN",
    )


NAMED: tuple[NamedData, ...] = (
    NamedData(
        name="flower_photos",
        title="five flowers, as TensorFlow's tutorials use them",
        classes=5,
        pictures=3670,
        licence="Creative Commons BY; LICENSE.txt names the photographers",
        citation="The TensorFlow Team: Flowers, 2019",
        page="https://www.tensorflow.org/datasets/catalog/tf_flowers",
        files=(
            RemoteFile(
                "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
                Checksums(
                    size=228_813_984,
                    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
                ),
            ),
        ),
        layout=ClassFolders(("daisy", "dandelion", "roses", "sunflowers", "tulips")),
        known=("it holds 633 daisies; texts that say 663 swap two digits",),
    ),
    NamedData(
        name="flowers17",
        title="17 flowers of Britain, 80 pictures each",
        classes=17,
        pictures=1360,
        licence=_NO_LICENCE,
        citation="Nilsback, Zisserman: A Visual Vocabulary for Flower Classification, CVPR 2006",
        page=f"{_OXFORD}/17/",
        files=(
            RemoteFile(
                f"{_OXFORD}/17/17flowers.tgz",
                Checksums(
                    sha256="fe38a60f8b4a95e657551247d3e7d799a3fafcdbc595be504b12839967823d70",
                    md5="b59a65d8d1a99cd66944d474e1289eab",
                ),
            ),
        ),
        layout=NumberRanges(FLOWERS_17, each=80),
        known=(
            "its three official splits are not used: the classes are cut like those of any folder",
        ),
    ),
    NamedData(
        name="flowers102",
        title="102 flowers of Britain, 40 to 258 pictures each",
        classes=102,
        pictures=8189,
        licence=_NO_LICENCE,
        citation="Nilsback, Zisserman: Automated Flower Classification over a Large Number of"
        " Classes, ICVGIP 2008",
        page=f"{_OXFORD}/102/",
        files=(
            RemoteFile(
                f"{_OXFORD}/102/102flowers.tgz",
                Checksums(
                    size=344_862_509,
                    sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                    md5="52808999861908f626f3c1f4e79d11fa",
                ),
            ),
            RemoteFile(
                f"{_OXFORD}/102/imagelabels.mat",
                Checksums(
                    sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
                    md5="e0620be6f572b9609742df49c70aed4d",
                ),
            ),
            RemoteFile(
                f"{_OXFORD}/102/setid.mat",
                Checksums(
                    sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
                    md5="a5357ecc9cb78c4bef273ce3793fc85c",
                ),
            ),
        ),
        layout=LabelFiles(FLOWERS_102),
        known=("the published test part is six times as large as the part to learn from",),
    ),
    NamedData(
        name="caltech101",
        title="101 kinds of objects, 31 to 800 pictures each",
        classes=101,
        pictures=8677,
        licence="Creative Commons BY 4.0",
        citation="Li, Andreeto, Ranzato, Perona: Caltech 101, CaltechDATA 2022, 10.22002/D1.20086",
        page="https://data.caltech.edu/records/mzrjq-6wc02",
        files=(
            RemoteFile(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                Checksums(
                    size=137_414_764,
                    sha256="331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
                    md5="3138e1922a9193bfa496528edbbc45d0",
                ),
            ),
        ),
        layout=ClassFolders(among=("Faces", "accordion"), leave_out=("BACKGROUND_Google",)),
        inner=("101_ObjectCategories.tar.gz",),
        known=(
            "Faces and Faces_easy show the same people in the same photographs, cut differently",
        ),
    ),
    NamedData(
        name="chest_xray",
        title="chests of children, X-rayed: normal or pneumonia",
        classes=2,
        pictures=5856,
        licence="Creative Commons BY 4.0",
        citation="Kermany, Zhang, Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest"
        " X-Ray Images for Classification, Mendeley Data v2, 2018, 10.17632/rscbjbr9sj.2",
        page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
        files=(
            RemoteFile(
                "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
                Checksums(size=1_235_512_464),
                name="ChestXRay2017.zip",
            ),
        ),
        layout=ClassFolders(("NORMAL", "PNEUMONIA")),
        known=(
            "patients stand in train and test; --group-by 'person([0-9]+)' --regroup parts them",
            "the copy on Kaggle has a part val of 16 pictures, taken from train; this one has none",
        ),
    ),
    NamedData(
        name="dogs_vs_cats",
        title="dogs and cats, Microsoft's copy",
        classes=2,
        pictures=25_000,
        licence=_NO_LICENCE,
        citation="Elson, Douceur, Howell, Saul: Asirra, CCS 2007",
        page="https://www.microsoft.com/en-us/download/details.aspx?id=54765",
        files=(
            RemoteFile(
                "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
                Checksums(
                    size=824_887_076,
                    sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
                ),
            ),
        ),
        layout=ClassFolders(("Cat", "Dog")),
        known=(
            "TensorFlow Datasets leaves out 1738 of its files for their header; here they stay",
        ),
    ),
    NamedData(
        name="dogs_vs_cats_kaggle",
        title="dogs and cats, the competition's part with labels",
        classes=2,
        pictures=25_000,
        licence="rules of the competition: not to be passed on",
        citation="Kaggle: Dogs vs. Cats, 2013",
        page="https://www.kaggle.com/c/dogs-vs-cats/data",
        layout=NamePrefixes(("cat", "dog")),
        inner=("train.zip",),
    ),
    NamedData(
        name="flowers_recognition",
        title="five flowers, Kaggle's collection",
        classes=5,
        pictures=4323,
        licence=_KAGGLE,
        citation="Mamaev: Flowers Recognition, Kaggle 2018",
        page="https://www.kaggle.com/alxmamaev/flowers-recognition",
        layout=ClassFolders(("daisy", "dandelion", "rose", "sunflower", "tulip")),
        known=("its page says 4242 pictures; copies differ, and some hold every picture twice",),
    ),
    NamedData(
        name="animals",
        title="cats, dogs and pandas, 1000 each",
        classes=3,
        pictures=3000,
        licence=_NO_LICENCE,
        citation="Rosebrock: Deep Learning for Computer Vision with Python, 2017",
        page="https://pyimagesearch.com/deep-learning-computer-vision-python-book/",
        layout=ClassFolders(("cats", "dogs", "panda")),
    ),
    NamedData(
        name="fruit_recognition",
        title="fruits on a tray, 22 kinds of 15 fruits",
        classes=22,
        pictures=44_406,
        licence=_KAGGLE,
        citation="Hussain, He, Chen: Automatic Fruit Recognition Using Deep Learning, 2018",
        page="https://www.kaggle.com/chrisfilo/fruit-recognition",
        layout=LeafFolders(
            among=("Banana", "Carambola"),
            leave_out=(
                "Total Number of Apples",
                "Total Number of Kiwi fruit",
                "Guava total",
                "guava total final",
            ),
        ),
        known=("many pictures are frames of one film: a random split tests on what was learned",),
    ),
    NamedData(
        name="vegetables",
        title="15 vegetables, 1400 each",
        classes=15,
        pictures=21_000,
        licence=_KAGGLE,
        citation="Ahmed, Mamun, Asif: DCNN-based Vegetable Image Classification, 2021",
        page="https://www.kaggle.com/misrakahmed/vegetable-image-dataset",
        layout=ClassFolders(among=("Pumpkin", "Tomato")),
    ),
)
"""Every data set with a name, those that can be downloaded first."""

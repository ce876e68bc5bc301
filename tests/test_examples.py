"""The plans of the published experiments: all rows, their figures, and networks as they were."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.data.named import find_data
from regraft.data.synthetic import make_flowers
from regraft.experiment.batch import PlanRunner
from regraft.experiment.plan import read_plan
from regraft.experiment.run import build as build_learner
from regraft.report.comparison_page import comparison_table
from regraft.results.comparison import Comparison
from regraft.training.augment import find_augmentation
from regraft.training.batches import epoch_batches
from regraft.training.heads import find_head
from regraft.training.network import TransferNetwork
from regraft.training.regularize import Regularization, find_regularization

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MEASURED = sorted((EXAMPLES / "measured").glob("*.toml"))
PLANS = sorted(set(EXAMPLES.rglob("*.toml")) - set(MEASURED))
OTHER_PROTOCOL = ("-corrected", "-as-printed", "-ten")
DOCUMENTS = {
    "sibgrapi_2019": 28,
    "deep_learning_course_week_11": 8,
    "advanced_cnns_lecture": 4,
    "mai_deep_learning_lab": 12,
    "transfer_learning_with_cnns": 14,
}

# row, train, validation and test in percent, minutes, as printed in the tables of the document
SIBGRAPI = """
1a 99.85 64.59 63.18 7 1b 99.85 63.76 64.70 7 1c 76.82 70.71 70.35 30 1d 93.59 73.65 74.58 90
2a 95.46 54.24 52.00 53 2b 86.37 57.76 55.52 53 2c 66.31 68.82 66.58 54 2d 85.04 72.24 75.41 110
3a 95.31 76.24 75.52 15 3b 94.27 84.35 81.52 15 3c 87.25 82.35 82.35 30
4a 99.85 89.53 88.82 21 4b 99.89 91.06 89.88 21 4c 99.16 90.35 90.71 31
5a 99.81 93.75 74.19 60 5a-again 99.83 100 79.35 60 5b 99.64 100 75.64 60
5b-again 99.73 100 74.99 60 5c 98.77 75.00 87.90 80
6a 99.98 100 76.61 35 6b 99.90 100 78.22 35 6c 97.45 87.50 92.90 86
7a 100 100 77.74 35 7b 99.97 100 79.03 35 7c 98.70 87.50 92.74 57
8a 92.29 90.78 91.97 332 8b 99.98 81.25 76.94 60 8c 80.38 50.00 62.58 52
"""
# of each other document the part that it measures, and the share of each row
OTHERS = """
deep_learning_course_week_11 test A1 0.99 A2 0.95 A2-again 0.95 A3 0.91 B1 0.88 B2 0.94 C1 0.9147
advanced_cnns_lecture test 1 0.8541 2 0.8829 3 0.8838 4 0.9261
mai_deep_learning_lab test 0a 0.9625 0b 0.86 0c 0.6590 1 0.9835 2 0.9917 3 0.9993 4 0.9826 \
  5 0.9926 6 0.9863 7 0.9863 8 0.9272 9 0.04
transfer_learning_with_cnns validation 1 0.88 2 0.89 3 0.9 4 0.91 5 0.88 6 0.9 7 0.9 8 0.88 \
  9 0.86 10 0.84 11 0.89 12 0.935 13 0.35 14 0.92
"""
OTHERS = [line.split() for line in OTHERS.strip().splitlines()]


@functools.cache
def plan_of(path, small=False):
    return read_plan(path, small=small)


@functools.cache
def configs_of(document):
    """Return the configs of a document by the id of their row."""
    plans = [plan_of(path) for path in PLANS if path.parent.name == document]
    found = [(config.method.id, config) for plan in plans for config in plan.configs()]
    assert len(dict(found)) == len(found), "an id stands twice"
    return dict(found)


def published(document):
    """Return the configs of the rows that a document prints, by their ids."""
    configs = configs_of(document)
    return {name: one for name, one in configs.items() if not name.endswith(OTHER_PROTOCOL)}


@functools.cache
def trunk(name, arguments, size):
    # The wide layers of VGG's former head are no part of the trunk; narrow ones build faster.
    narrow = {"mlp_ratio": 0.01} if name.startswith("vgg") else {}
    arguments = {**narrow, **dict(arguments), "size": size}
    return build(BackboneSpec(name, weights=None, arguments=arguments))


def head_of(learner):
    regularize = find_regularization(learner.regularize) or Regularization()
    return regularize.head(find_head(learner.head))


def network_of(config, classes):
    """Return the network that a config trains, with random weights."""
    learner = build_learner(config.method)
    spec = learner.backbone
    size = spec.preprocessing.size if spec.preprocessing else 224
    outputs = 1 if learner.output == "sigmoid" else classes
    return TransferNetwork(
        trunk(spec.name, spec.arguments, size), head_of(learner), outputs=outputs
    )


def trained(network, phase):
    """Return how many parameters a phase trains, and the first stage among them."""
    chosen = network.freeze(phase)
    count = sum(each.numel() for each in network.parameters() if each.requires_grad)
    names = [*(stage.name for stage in network.stages), "head"]
    return count, names[chosen.first]


def test_the_documents_have_74_rows_with_what_they_print():
    rows = {document: len(published(document)) for document in DOCUMENTS}
    told = (EXAMPLES / "advanced_cnns_lecture" / "predictions.md").read_text()
    predictions = re.findall(
        r"^\| P([1-8]) \| (\w+) \| [\w ]+ \| n\d+ \w+ (0\.\d{4}) ", told, re.MULTILINE
    )

    assert rows == DOCUMENTS
    assert [(network, float(share)) for _, network, share in predictions] == [
        *(("inception_resnet_v2", share) for share in (0.7944, 0.8940, 0.8758, 0.9162)),
        *(("xception", share) for share in (0.6348, 0.9032, 0.1572, 0.9650)),
    ]
    assert sum(rows.values()) + len(predictions) == 74


def test_the_tutorial_is_quoted_as_it_is_printed():
    told = {row: config.method.published for row, config in published("sibgrapi_2019").items()}
    cells = SIBGRAPI.split()

    assert sorted(told) == sorted(cells[::5])
    for row, *shares, minutes in zip(*[iter(cells)] * 5, strict=True):
        found = [100 * told[row][part] for part in ("train", "validation", "test")]
        assert found == pytest.approx([*map(float, shares)]), row
        assert told[row]["seconds"] == 60 * int(minutes), row


@pytest.mark.parametrize(("document", "part", "figures"), [(d, p, f) for d, p, *f in OTHERS])
def test_the_other_documents_are_quoted_as_they_are_printed(document, part, figures):
    told = {row: config.method.published for row, config in published(document).items()}
    silent = {"C2": {"note": "no figure was published"}}

    printed = dict(zip(figures[::2], map(float, figures[1::2]), strict=True))
    assert {row: each[part] for row, each in told.items() if row not in silent} == printed
    assert all(told[row] == silent[row] for row in silent if row in told)


@pytest.mark.parametrize(
    ("row", "averages"),
    [
        ("A1", ((0.99, 0.99, 0.99), (0.99, 0.99, 0.99))),
        ("A3", ((0.93, 0.92, 0.92), (0.92, 0.91, 0.91))),
        ("B1", ((0.89, 0.89, 0.89), (0.89, 0.88, 0.88))),
        ("B2", ((0.94, 0.94, 0.94), (0.94, 0.94, 0.94))),
    ],
)
def test_the_reports_by_class_are_quoted_with_the_averages_that_follow_from_them(row, averages):
    report = dict(published("deep_learning_course_week_11")[row].method.published["report"])

    printed = [report.pop(f"{name} average") for name in ("macro", "weighted")]
    shares = np.array([cells[:3] for cells in report.values()])
    images = [cells[3] for cells in report.values()]

    assert tuple(cells[:3] for cells in printed) == averages
    assert {cells[3] for cells in printed} == {sum(images)}
    for weights, cells in zip((None, images), printed, strict=True):
        assert np.average(shares, axis=0, weights=weights) == pytest.approx(cells[:3], abs=0.0101)


def test_what_was_never_published_has_no_published_figures():
    others = [
        config
        for document in DOCUMENTS
        for name, config in configs_of(document).items()
        if name.endswith(OTHER_PROTOCOL)
    ]

    assert len(others) == 20
    assert [config.method.id for config in others if config.method.published] == ["C1-ten"]


SIZES = {
    "small": 9_934_085,
    "vgg_flowers": 27_825_477,
    "vgg_chests": 27_823_425,
    "head_flowers": 13_110_789,
    "upper_flowers": 12_979_200 + 13_110_789,
    "head_chests": 13_108_737,
    "upper_chests": 12_979_200 + 13_108_737,
    "mobile": 818_592 + 513,
    "conv_head": 513,
}
# id: parameters, trained parameters, first trained stage, epochs, optimizer, rate, dropout,
# augmentation, the row that it goes on from
TRAININGS = """
1a small small features.0 30 sgd 0.01 0 - -
1b small small features.0 30 sgd 0.01 0.4 - -
1c small small features.0 30 sgd 0.01 0.4 A1 -
1d small small features.0 60 sgd 0.01 0.4 A1 1c
2a vgg_flowers vgg_flowers features.0 30 sgd 0.01 0 - -
2b vgg_flowers vgg_flowers features.0 30 sgd 0.01 0.3 - -
2c vgg_flowers vgg_flowers features.0 30 sgd 0.01 0.3 A1 -
2d vgg_flowers vgg_flowers features.0 60 sgd 0.01 0.3 A1 2c
3a vgg_flowers head_flowers head 30 sgd 0.01 0 - -
3b vgg_flowers head_flowers head 30 sgd 0.01 0.3 - -
3c vgg_flowers head_flowers head 30 sgd 0.01 0.3 A2 -
4a vgg_flowers upper_flowers features.17 30 sgd 0.01 0 - -
4b vgg_flowers upper_flowers features.17 30 sgd 0.01 0.3 - -
4c vgg_flowers upper_flowers features.17 30 sgd 0.01 0.3 A2 -
5a vgg_chests vgg_chests features.0 30 rmsprop 2e-5 0 - -
5a-again vgg_chests vgg_chests features.0 30 rmsprop 2e-5 0 - -
5b vgg_chests vgg_chests features.0 30 rmsprop 2e-5 0.3 - -
5b-again vgg_chests vgg_chests features.0 30 rmsprop 2e-5 0.3 - -
5c vgg_chests vgg_chests features.0 30 rmsprop 1e-5 0.3 A2 -
6a vgg_chests head_chests head 20 rmsprop 2e-5 0 - -
6b vgg_chests head_chests head 20 rmsprop 2e-5 0.3 - -
6c vgg_chests head_chests head 30 rmsprop 1e-5 0.3 A2 -
7a vgg_chests upper_chests features.17 20 rmsprop 2e-5 0 - -
7b vgg_chests upper_chests features.17 20 rmsprop 2e-5 0.3 - -
7c vgg_chests upper_chests features.17 20 rmsprop 1e-5 0.3 A2 -
8a mobile mobile conv_stem 60 sgd 0.02 0.3 A3 -
8b mobile mobile conv_stem 40 sgd 0.001 0.3 - -
8c mobile conv_head head 40 sgd 0.001 0.3 - 8a
"""
# rotation, shift, shear in degrees, zoom, flip, fill
AUGMENTATIONS = {
    "A1": (30, 0, 0, 0.3, True, "reflect"),
    "A2": (0, 0, 0, 0.3, True, "nearest"),
    "A3": (50, 0.2, 0.2, 0.3, True, "nearest"),
}


@pytest.mark.parametrize("line", TRAININGS.strip().splitlines())
def test_a_row_of_the_tutorial_trains_what_was_trained_there(line):
    row, parameters, moving, first, epochs, optimizer, rate, dropout, augment, start = line.split()
    config = published("sibgrapi_2019")[row]
    learner = build_learner(config.method)
    (phase,) = learner.phases
    network = network_of(config, classes=5)
    changes = find_augmentation(learner.augment)

    assert network.size() == SIZES[parameters]
    assert trained(network, phase) == (SIZES[moving], first)
    assert (phase.epochs, phase.optimizer, phase.lr) == (int(epochs), optimizer, float(rate))
    assert (phase.momentum, phase.schedule, phase.keep) == (0, "constant", "last")
    assert learner.batch_size == 10
    assert head_of(learner).dropout == float(dropout)
    assert (changes is None) == (augment == "-")
    if changes is not None:
        said = (changes.rotation, changes.shift_x, changes.shear, changes.zoom, changes.flip)
        assert (*said, changes.fill) == AUGMENTATIONS[augment]
        assert changes.shift_y == changes.shift_x
    earlier = "None" if start == "-" else published("sibgrapi_2019")[start].link
    assert str(config.method.start) == earlier


@pytest.mark.parametrize(
    ("rows", "images", "steps"), [("1234", 2623, 262), ("567", 5216, 522), ("8a", 15_000, 1500)]
)
def test_an_epoch_of_the_tutorial_has_as_many_steps_as_there(rows, images, steps):
    found = published("sibgrapi_2019")
    chosen = [row for row in found if row == rows or (len(rows) > 2 and row[0] in rows)]

    assert chosen
    for row in chosen:
        learner = build_learner(found[row].method)
        for phase in learner.phases:
            batches = epoch_batches(np.arange(images), learner.batch_size, phase.steps)
            assert len(batches) == steps, row


def test_the_frozen_batch_norm_of_the_tutorial_used_each_batch_and_the_corrected_one_does_not():
    configs = configs_of("sibgrapi_2019")

    assert build_learner(configs["8c"].method).phases[0].batchnorm == "batch_statistics"
    assert build_learner(configs["8c-corrected"].method).phases[0].batchnorm == "frozen"


def test_the_tutorial_prepared_images_for_other_weights_and_the_corrected_rows_do_not():
    configs = configs_of("sibgrapi_2019")
    wrong = Preprocessing.tf(mode="squash", resize=224, interpolation="nearest", channels="BGR")

    assert {config.method.spec.preprocessing for config in published("sibgrapi_2019").values()} == {
        wrong
    }
    for row in ("3a", "3b", "3c", "4a", "4b", "4c", "6a", "6b", "6c", "7a", "7b", "7c"):
        assert configs[f"{row}-corrected"].method.spec.preprocessing is None


def test_the_row_from_zero_began_with_imagenet_and_the_corrected_one_begins_with_nothing():
    configs = configs_of("sibgrapi_2019")

    assert build_learner(configs["5c"].method).backbone.weights == "default"
    assert build_learner(configs["5c-corrected"].method).backbone.weights is None


@pytest.mark.parametrize(
    ("document", "row", "classes", "moving", "first"),
    [
        ("deep_learning_course_week_11", "B1", 17, 6_427_153, "head"),
        ("deep_learning_course_week_11", "B2", 17, 13_506_577, "features.24"),
        ("advanced_cnns_lecture", "1", 5, 590_597, "head"),
        ("advanced_cnns_lecture", "4", 5, 7_079_424 + 590_597, "features.24"),
        ("mai_deep_learning_lab", "1", 22, 26_551_830, "features.14"),
        ("mai_deep_learning_lab", "2", 22, 27_697_238, "features.0"),
        ("mai_deep_learning_lab", "4", 22, 12_982_550, "head"),
    ],
)
def test_the_other_documents_train_what_was_trained_there(document, row, classes, moving, first):
    config = published(document)[row]

    network = network_of(config, classes)

    assert trained(network, build_learner(config.method).phases[-1]) == (moving, first)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
@pytest.mark.parametrize("small", [False, True], ids=["whole", "small"])
def test_every_row_of_every_plan_is_a_learner(path, small):
    plan = plan_of(path, small)

    assert plan.title
    for row in plan.rows:
        for config in row.configs:
            assert build_learner(config.method).get_params()
            assert config.data.test


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_every_row_that_was_measured_is_a_learner_and_stands_in_the_results(path):
    results = (EXAMPLES / "RESULTS.md").read_text()

    for row in read_plan(path).rows:
        assert f"| {row.description}" in results
        for config in row.configs:
            assert build_learner(config.method).get_params()


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_head_of_a_plan_says_where_it_is_from_how_to_run_it_and_what_differs(path):
    text = path.read_text()
    head = text.partition("\n\n")[0]
    said, differs, _ = head.partition("\n# What differs here:\n")
    fetched = set(re.findall(r"^#   regraft data fetch (\w+)", head, re.MULTILINE))
    name = path.relative_to(EXAMPLES.parent)

    assert re.match(r"# .+\.\n#\n# (From|Experiment \d of): ", said)
    assert f"#   regraft run {name}\n" in said
    assert re.search(rf"#   regraft run {name} .*--small", said)
    assert differs
    assert {find_data(name).name for name in fetched} == fetched
    assert set(re.findall(r'source = "../../data/(\w+)"', text)) == fetched


def test_settings_that_only_come_near_the_published_ones_are_said_to():
    said = {path.stem: path.read_text() for path in PLANS}

    assert "INTER_AREA" in said["flowers17"]
    assert "weight decay" in said["dogs_vs_cats"]
    assert "weight_decay = 4e-4" in said["dogs_vs_cats"]  # the gradient of 2e-4 times w squared
    assert "size = 227" in said["dogs_vs_cats"]
    assert "stopped after 1000 iterations" in said["fruit"]
    assert "10 batches" in said["flowers"]
    for path in PLANS:
        if path.name[0] in "1234":
            assert "here 170 each are drawn at random" in said[path.stem]
            assert {(one.data.val, one.data.test) for one in plan_of(path).configs()} == {
                (170, 170)
            }


def test_the_small_plans_need_no_weights_that_are_not_in_the_package():
    for path in PLANS:
        for config in plan_of(path, small=True).configs():
            spec = build_learner(config.method).backbone
            packaged = spec.weights is None or spec.name == "efficientnet_lite0"
            assert packaged or config.method.start, (path.stem, config.method)


def test_every_document_is_told_of():
    told = (EXAMPLES / "README.md").read_text()

    assert {path.parent.name for path in PLANS} == set(DOCUMENTS)
    for document in DOCUMENTS:
        assert f"| `{document}` |" in told


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_small_plans_of_all_documents_run_to_the_end_with_published_beside_measured(tmp_path):
    folders = {count: tmp_path / f"drawn_{count}" for count in (2, 3)}
    for count, folder in folders.items():
        make_flowers(folder, species=count, per_class=24, size=64)
    for path in PLANS:
        of_two = any(one.method.output == "sigmoid" for one in plan_of(path).configs())
        plan = read_plan(path, small=True, data=[str(folders[2 if of_two else 3])])

        outcome = PlanRunner(tmp_path / "runs" / path.stem, explain=False).run(plan)

        assert outcome.failures == ()
        assert [row.description for row in outcome.rows] == [row.description for row in plan.rows]
        assert all(0 <= row.test.estimate.value <= 1 for row in outcome.rows)
        comparison = Comparison.of(outcome.rows, title=plan.title, warnings=(plan.note,))
        printed = comparison_table(comparison).to_markdown()
        for row in outcome.rows:
            assert row.description in printed
        assert ("test published" in printed) == any("test" in row.published for row in plan.rows)


def test_the_mean_of_ten_crops_is_measured_on_the_very_network_of_c1():
    method = configs_of("deep_learning_course_week_11")["C1-ten"].method

    assert (method.test_views, method.published) == (10, {"test": 0.9304})
    assert str(method.start) == configs_of("deep_learning_course_week_11")["C1"].link
    assert sum(phase.epochs for phase in method.all_phases()) == 0

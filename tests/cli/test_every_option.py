"""Every command with every option runs; an option that no row tries fails here."""

import json
import shlex
import shutil

import pytest
import typer

from regraft.cli.app import app

# One command a line; names in braces are paths, {new} one where nothing stands yet.
ROWS = """
data check {table} --root {flowers} --group-by column --out {new} --json
data check FLAT --follow-links --allow-empty-class
data split TABLE --out {new} --json
data split FLAT --keep-parts --folds 3 --fold 1 --out {new}
data preview {table} --root {flowers} --follow-links --augment flip=true --images 2 --views 2 \
  --seed 1 --out {new}.png
data preview FLAT --out {new}.png
data fetch animals --from {animals} --to {new} --json
data suspects {table} --root {flowers} --seed 1 --group-by column --small-classes train \
  --follow-links --skip-bad --max-bad 0.5 --folds 3 SMALL --device cpu --precision fp32 --no-cache \
  --out {new}.html --csv {new}.csv --json
data suspects FLAT SMALL
data next {table} {fresh} {image} --root {flowers} --seed 1 --follow-links --skip-bad \
  --max-bad 0.5 SMALL --device cpu --precision fp32 --no-cache --count 3 --json
data next FLAT {fresh} SMALL
data apply-review {table} {review} --root {flowers} --group-by column --out {new}.csv --json
data apply-review FLAT {no_review} --follow-links --allow-empty-class --out {new}.csv
backbones list --available --out {new}.html --json
backbones show simple_cnn --weights random --arg size=64 --pooling flatten --top --json
backbones show simple_cnn --arg size=64 --classes 5 --head mlp_256 --unfreeze 0.25 --layers --json
backbones rank {flowers} --backbone my_net --folds 2 --per-class 4 --budget 9m \
  --format csv
backbones rank TABLE --backbone my_net --engine torch --out {new}.html --json
backbones rank FLAT --keep-parts --backbone my_net
fit TABLE SMALL --strategy features --classifier knn --scale unit --pooling flatten \
  --precision bf16 --no-cache --test-views 2 --description kNN --per-class 3 --at-most \
  --no-explain --out {new} --json
fit FLAT SMALL --keep-parts --folds 3 --fold 1 --size 10 --export --out {new}
fit {flowers} SMALL --device cpu --epochs 1 --strategy two_stage --head-epochs 1 --unfreeze 0.5 \
  --fraction 0.9 --head mlp_256 --optimizer sgd --lr 0.01 --augment flip=true --views 2 \
  --batch-size 8 --class-weight balanced --output sigmoid --regularize label_smoothing=0.1 \
  --focal 2 --patience 3 --watch val_loss --boundary off --tensorboard {new}.events \
  --out {new} --json
fit {flowers} --backbone simple_cnn --arg size=48 --strategy from_scratch --epochs 1 \
  --sampling balanced --time-budget 1h --augment crop=56,flip=true --out {new}
extract {table} --root {flowers} --group-by column --follow-links --allow-empty-class SMALL \
  --pooling avg --device cpu --precision fp32 --no-cache --out {new}.h5 --json
extract FLAT SMALL --pixels --out {new}.h5 --json
compare TABLE SMALL --device cpu --precision fp32 --seeds 1 --splits 1 --per-class 3 --at-most \
  --methods features,frozen --no-augment --no-regularize --no-explain --budget 5m --out {new} --json
compare FLAT SMALL --keep-parts --folds 2 --methods features --augment --regularize \
  --budget none --out {new} --format markdown
run {plan} --data {flowers} --only knn --jobs 1 --no-explain --out {new} --json
run {small_plan} --small --out {new} --format latex
run {plan} --dry-run --json
fit {flowers} SMALL --strategy fine_tune --dry-run --json
find-lr TABLE SMALL --device cpu --strategy fine_tune --unfreeze last:1 --head linear \
  --optimizer adam --augment flip=true --regularize none --views 1 --batch-size 8 \
  --class-weight balanced --focal 1 --output softmax --precision fp32 --steps 12 \
  --out {new}.svg --json
find-lr FLAT SMALL --keep-parts --sampling balanced --steps 10 --batch-size 8
classify {image} --backbone efficientnet_lite0 --top 2 --out {new}.html
classify {image} --weights default --arg drop_rate=0.0 --label-from-name (?P<label>[0-9]+)
classify --json {animals}/panda
predict {run} {image} --top 2 --json
predict {run} {image} --csv
predict {exported} {image} --coverage 0.5 --each-class
predict {exported} {image} --unlike 0.4
explain {run} {image} {fresh} --class poppy --channel 3 --out {new}.html
explain --backbone efficientnet_lite0 --weights default --arg size=64 {image} --out {new}.html
export {run} --with-images --json
export {run} --to onnx --data {flowers} --out {new}.onnx
export {run} --to bundle --int8 --out {new}.zip
export {run} --to torch-export --out {new}.pt2
neighbours {run} {image} --top 2 --json
neighbours {run}/model {flowers}/daisy
evaluate {run} {table} --root {flowers} --follow-links --skip-bad --max-bad 0.1 --json
evaluate {run} FLAT --test-views 10
report {run} --data {flowers}
compare-runs {run} --out {new}.html --format csv
compare-runs {run} --apart --classes --out {new}.html
compare-runs {run} --json
weights list --json
weights path
weights fetch efficientnet_lite0
weights import {weights} --name my_net --backbone simple_cnn --arg size=48 \
  --preprocessing mean=0.4,0.5,0.6 --licence mit --overwrite --json
weights verify
"""
OPTIONS = {
    "TABLE": "{table} --root {flowers} --group-by column --regroup --val 0.2 --test 0.3 --seed 1"
    " --small-classes train --allow-empty-class --follow-links --skip-bad --max-bad 0.5",
    "FLAT": "{flat} --label-from-name (?P<label>[a-z]+)_",
    "SMALL": "--backbone simple_cnn --arg size=48 --weights random --engine torch",
}
for word, options in OPTIONS.items():
    ROWS = ROWS.replace(word, options)
ROWS = ROWS.strip().splitlines()
# Options that other tests try, because they need a run of their own or much time.
ELSEWHERE = {
    "fit": {"--from", "--resume"},
    "find-lr": {"--from"},
    "predict": {"--abstain-error"},
    "export": {"--runtime"},
    "demo": {"--out"},
    "watch": {"--port"},
    "push": {"--private", "--message"},
    "pull": {"--revision"},
    "serve": {
        *("--host", "--port", "--token-file", "--allow-host", "--max-bytes", "--maps"),
        *("--abstain-error", "--coverage", "--each-class", "--unlike"),
    },
}


def commands(group, *before):
    """Yield the words and the built command of every command."""
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, *before, name)
        else:
            context = found.make_context(name, [], resilient_parsing=True)
            yield " ".join((*before, name)), context.command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def names(place, fitted, tmp_path_factory):
    from safetensors.torch import save_file

    from regraft.backbones.backbone import build
    from regraft.backbones.spec import BackboneSpec
    from regraft.data.synthetic import make_flowers
    from regraft.experiment.export import export_run

    folder = tmp_path_factory.mktemp("more")
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    save_file(network.module.state_dict(), folder / "net.safetensors")
    plan = place.plan.read_text().replace('"flowers"', f'"{place.flowers}"')
    (folder / "small.toml").write_text(plan + "[small]\nepochs = 1\n[small.row]\nper_class = 4\n")
    make_flowers(folder / "fresh", species=2, per_class=3, size=48, seed=1)
    columns, path = "path,given,suggested,label\n", place.image.relative_to(place.flowers)
    shutil.copytree(fitted, folder / "exported")
    export_run(folder / "exported")
    (folder / "none.csv").write_text(columns)
    (folder / "review.csv").write_text(f"{columns}{path},{path.parent},poppy,poppy\n")
    return {
        **vars(place),
        "fresh": folder / "fresh",
        "review": folder / "review.csv",
        "no_review": folder / "none.csv",
        "run": fitted,
        "exported": folder / "exported",
        "weights": folder / "net.safetensors",
        "small_plan": folder / "small.toml",
    }


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row.split()[:3]) for row in ROWS])
def test_the_command_runs(row, regraft, names, tmp_path):
    if " my_net" in row and "import" not in row:
        regraft(
            "weights",
            "import",
            names["weights"],
            "--backbone",
            "simple_cnn",
            "--arg",
            "size=48",
            "--name",
            "my_net",
        )

    result = regraft(*(word.format(new=tmp_path / "new", **names) for word in shlex.split(row)))

    assert not result.return_value
    assert result.stdout or result.stderr
    assert result.stdout[-1:] in {"", "\n"}
    if row.endswith("--json"):
        json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_tried(command):
    rows = [row for row in ROWS if row.startswith(f"{command} ") or row == command]
    tried = {word for row in rows for word in row.split() if word.startswith("-")}
    tried |= ELSEWHERE.get(command, set())

    options = [
        {*param.opts, *param.secondary_opts}
        for param in COMMANDS[command].params
        if param.param_type_name == "option" and param.name != "help"
    ]

    assert rows or command in ELSEWHERE
    assert [option for option in options if not option & tried] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_and_argument_is_explained(command):
    params = COMMANDS[command].params

    assert COMMANDS[command].help
    assert [p.name for p in params if p.param_type_name == "option" and not p.help] == []

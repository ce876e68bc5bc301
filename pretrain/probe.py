"""Measure what frozen features are worth: linear probes on five sets of photographs.

Logistic regression on pooled, standardised features; its C is chosen by threefold cross-validation
on the training part alone. Splits: flowers5, flowers17 and animals are cut 75 / 25, stratified,
seed 0; hymenoptera and chest_xray come with theirs. Intervals are Wilson's at 95 %.

    python pretrain/probe.py --assets ASSETS --backbone BACKBONE.pt --out PROBES.json
"""

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from sets import SETS, Photographs, read_set
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from regraft.backbones.mini import RegraftMini
from regraft.results.statistics import wilson

GRID = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BATCH = 32


@dataclass(frozen=True)
class Network:
    """A network under measurement and how it wants its pictures."""

    name: str
    build: Callable[[], nn.Module]
    size: int = 224
    resize: int = 256
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    filter: Image.Resampling = Image.Resampling.BICUBIC


def prepare(path: Path, network: Network) -> np.ndarray:
    """Return one picture: short side resized, centre cut out, normalised, (3, size, size)."""
    picture = Image.open(path).convert("RGB")
    scale = network.resize / min(picture.size)
    picture = picture.resize([max(round(s * scale), network.size) for s in picture.size],
                             network.filter)  # fmt: skip
    left, top = ((side - network.size) // 2 for side in picture.size)
    picture = picture.crop((left, top, left + network.size, top + network.size))
    mean, spread = (np.array(values, np.float32) for values in network.statistics)
    return ((np.asarray(picture, np.float32) / 255 - mean) / spread).transpose(2, 0, 1)


def embed(network: Network, paths: list[Path]) -> np.ndarray:
    """Return pooled features (n, d) in float32, computed with OpenVINO."""
    example = torch.zeros(BATCH, 3, network.size, network.size)
    with torch.no_grad():
        model = ov.convert_model(network.build().eval(), example_input=example,
                                 input=[*example.shape])  # fmt: skip
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    features = []
    for start in range(0, len(paths), BATCH):
        part = [prepare(path, network) for path in paths[start : start + BATCH]]
        part += part[-1:] * (BATCH - len(part))
        features.append(compiled(np.stack(part))[0].copy())
    return np.concatenate(features)[: len(paths)]


def fit(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> GridSearchCV:
    """Return the logistic regression with the C that cross-validation prefers."""
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(pipeline, {"logisticregression__C": GRID}, cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return search.fit(features, labels)


def interval(hits: int, count: int) -> dict[str, float]:
    """Return the share of hits with Wilson's interval at 95 %."""
    share = wilson(hits, count)
    return {"accuracy": share.value, "low": share.low, "high": share.high, "n": count}


def few(labels: np.ndarray, rows: np.ndarray, seed: int, count: int = 20) -> np.ndarray:
    """Return `count` rows of every class, drawn from rows."""
    generator = np.random.default_rng(seed)
    each = [rows[labels[rows] == label] for label in np.unique(labels)]
    return np.concatenate([generator.permutation(part)[:count] for part in each])


def probe(features: np.ndarray, data: Photographs) -> dict[str, object]:
    """Return the test accuracy with all training pictures, and with 20 per class (3 draws)."""
    truth = data.labels[data.test]
    search = fit(features[data.train], data.labels[data.train])
    hits = int((search.predict(features[data.test]) == truth).sum())
    result: dict[str, object] = {
        "all": interval(hits, len(truth)),
        "cross_validation": float(search.best_score_),
        "C": search.best_params_["logisticregression__C"],
    }
    shares = []
    for seed in range(3):
        rows = few(data.labels, data.train, seed)
        search = fit(features[rows], data.labels[rows], seed)
        shares.append(float((search.predict(features[data.test]) == truth).mean()))
    # The draws share one test part, so the interval is that of one draw of mean accuracy.
    result["twenty"] = interval(round(float(np.mean(shares)) * len(truth)), len(truth))
    result["twenty_draws"] = shares
    return result


def mini(file: Path | None, seed: int = 0) -> nn.Module:
    """Return regraft_mini with the weights of a file, or random ones."""
    torch.manual_seed(seed)
    network = RegraftMini()
    if file is not None:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file)
        network.load_state_dict({key: value.float() for key, value in state.items()})
    return network


def stored(network: nn.Module, folder: Path, name: str) -> nn.Module:
    """Return the network with the weights of this name."""
    state = load_file(folder / f"{name}.safetensors")
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return network


def timm_network(folder: Path, name: str, **arguments: object) -> nn.Module:
    """Return a timm network that gives its pooled features."""
    network = stored(timm.create_model(name, **arguments), folder, name)
    network.reset_classifier(0)
    return network


def squeezenet(folder: Path) -> nn.Module:
    """Return SqueezeNet's maps averaged over their places."""
    network = stored(torchvision.models.squeezenet1_1(), folder, "squeezenet1_1")
    return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def choose(backbone: Path, assets: Path, sizes: list[int]) -> None:
    """Print the cross-validated accuracy on training parts at several input sizes.

    The default size of regraft_mini follows from this, without a look at any test part.
    """
    for size in sizes:
        network = Network("regraft_mini", lambda: mini(backbone), size, round(size * 8 / 7))
        scores = []
        for name in ("flowers5", "flowers17", "animals"):
            data = read_set(assets, name)
            features = embed(network, [data.paths[row] for row in data.train])
            scores.append(float(fit(features, data.labels[data.train]).best_score_))
        print(size, " ".join(f"{score:.4f}" for score in scores), f"{np.mean(scores):.4f}")


def networks(backbone: Path | None, weights: Path, size: int) -> list[Network]:
    """Return everything that is measured side by side."""
    return [
        Network("regraft_mini", lambda: mini(backbone), size, round(size * 8 / 7)),
        Network("random regraft_mini", lambda: mini(None), size, round(size * 8 / 7)),
        Network("squeezenet1_1", lambda: squeezenet(weights), filter=Image.Resampling.BILINEAR),
        Network("mobilenetv2_100",
                lambda: timm_network(weights, "mobilenetv2_100", pad_type="same"),
                statistics=HALF),
        Network("vit_tiny_patch16_224", lambda: timm_network(weights, "vit_tiny_patch16_224"),
                resize=248, statistics=HALF),
    ]  # fmt: skip


def line(name: str, data: str, result: dict) -> str:
    """Return one line of the table."""
    cells = [
        f"{100 * part['accuracy']:.1f} [{100 * part['low']:.1f}, {100 * part['high']:.1f}]"
        for part in (result["all"], result["twenty"])
    ]
    return f"{name:22s} {data:12s} all {cells[0]:22s} 20 per class {cells[1]}"


def main() -> None:
    """Print and write accuracy and interval of every network on every set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("probes.json"))
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--choose", type=int, nargs="*", help="compare these sizes instead")
    parser.add_argument("--only", nargs="*", default=[], help="names of networks")
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    if arguments.choose:
        choose(arguments.backbone, arguments.assets, arguments.choose)
        return
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for network in networks(arguments.backbone, arguments.assets / "weights", arguments.size):
        if arguments.only and network.name not in arguments.only:
            continue
        for name in arguments.sets:
            data = read_set(arguments.assets, name)
            result = probe(embed(network, data.paths), data) | {"size": network.size}
            results.setdefault(network.name, {})[name] = result
            print(line(network.name, name, result), flush=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

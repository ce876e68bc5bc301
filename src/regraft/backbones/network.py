"""A network taken apart: its module, its last feature map, its parts in depth order, its layers.

What concerns any network alike stands here: tapping a submodule, finding stages, listing layers,
comparing tensors.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regraft.errors import BackboneError
from regraft.files import sha256_bytes, sha256_json

Layout = Literal["NCHW", "NHWC", "NLC"]
_SHOWN = 3  # names in an error
Apply = Callable[[Tensor], Tensor]
Containers = tuple[type[nn.Module], ...]
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)  # noqa: SLF001 - the common base has no public name


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the trunk that is frozen or trained as one.

    Args:
        name: The name of its first module.
        modules: The names of its modules in the network, in depth order.
        parameters: The names of all its parameters; some networks keep a few outside any module.
        output: The module whose output is the stage's output.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A whole network and how to take it apart.

    Args:
        module: The network with its head, if it has one.
        last_map: From a normalised batch (n, 3, height, width) to the last feature map.
        pooled: From the last feature map to one row per picture.
        groups: Names of the parameters, grouped in depth order; the head's may be among them.
        size: The input size that it was designed for, in pixels.
        fixed_size: Whether it takes no other size.
        layout: The order of the feature maps' axes.
    """

    module: nn.Module
    last_map: Apply
    pooled: Apply
    groups: tuple[tuple[str, ...], ...]
    size: int
    fixed_size: bool = False
    layout: Layout = "NCHW"


def channels_first(features: Tensor, layout: Layout = "NCHW") -> Tensor:
    """Return feature maps with the channels behind the batch axis, whatever their layout.

    Blocks of one network may differ in it. Images are square as they enter, and so are maps: where
    that tells the channels, the layout of the last map does not count.

    Example:
        >>> channels_first(torch.zeros(1, 7, 7, 768), "NHWC").shape
        torch.Size([1, 768, 7, 7])
    """
    if features.ndim == 4:
        _, first, middle, last = features.shape
        told = (first == middle) != (middle == last)
        is_last = first == middle if told else layout == "NHWC"
        return features.permute(0, 3, 1, 2) if is_last else features
    if features.ndim == 3:
        return features.transpose(1, 2)
    return features


def average(features: Tensor, layout: Layout = "NCHW") -> Tensor:
    """Return the average of each channel over all positions, shape (n, channels).

    Example:
        >>> average(torch.ones(2, 512, 7, 7)).shape
        torch.Size([2, 512])
    """
    maps = channels_first(features, layout)
    return maps if maps.ndim == 2 else maps.flatten(2).mean(-1)


class _Reached(Exception):  # noqa: N818 - not an error: it carries the value out of a forward pass
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def tap(module: nn.Module, name: str, side: Literal["input", "output"] = "output") -> Apply:
    """Return a function that runs ``module`` up to the submodule ``name``, for what passes there.

    Args:
        module: A whole network.
        name: The name of one of its submodules.
        side: Whether to take what goes in or what comes out.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten())
        >>> tap(net, "0")(torch.zeros(1, 3, 4, 4)).shape
        torch.Size([1, 8, 4, 4])
    """
    target = module.get_submodule(name)

    def run(batch: Tensor) -> Tensor:
        owner = threading.get_ident()  # another thread may be running the same network
        passed: list[Tensor] = []

        def leave(_module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
            if threading.get_ident() == owner:
                value = inputs[0] if side == "input" else output
                value = value[0] if isinstance(value, tuple | list) else value
                if not torch.compiler.is_exporting():  # which does not survive an exception
                    raise _Reached(value)
                passed.append(value)

        before = side == "input"
        register = target.register_forward_pre_hook if before else target.register_forward_hook
        handle = register(leave)
        try:
            module(batch)
        except _Reached as reached:
            return reached.value
        finally:
            handle.remove()
        if passed:
            return passed[0]
        raise BackboneError("the network never runs this part", why=name, code="BACKBONE-STAGE")

    return run


@contextlib.contextmanager
def watched(modules: Mapping[str, nn.Module], note: Callable[[str, Any], Any]) -> Iterator[None]:
    """Tell ``note`` the name and the output of each module that finishes."""
    handles = [
        child.register_forward_hook(lambda _module, _in, output, name=name: note(name, output))
        for name, child in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_calls(module: nn.Module, run: Callable[[], Any]) -> list[str]:
    """Return the names of the submodules in the order in which they finish while ``run`` runs.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten())
        >>> record_calls(net, lambda: net(torch.zeros(1, 3, 4, 4)))
        ['0', '1']
    """
    calls: list[str] = []
    inner = {name: child for name, child in module.named_modules() if name}
    with watched(inner, lambda name, _output: calls.append(name)):
        run()
    return calls


def classifier_modules(network: Network, blank: Tensor) -> tuple[list[str], tuple[str, ...]]:
    """Return what the trunk calls, and the modules with parameters that only the classifier runs.

    Args:
        network: A network in eval mode.
        blank: A batch that it takes, on its device.
    """
    module = network.module
    maps: list[Tensor] = []
    trunk = record_calls(module, lambda: maps.append(network.last_map(blank)))
    below = {*trunk, *record_calls(module, lambda: network.pooled(maps[0]))}
    whole = dict.fromkeys(record_calls(module, lambda: module(blank)))
    top = [name for name in whole if name not in below]
    return trunk, tuple(name for name in top if _has_own(module.get_submodule(name)))


def find_stages(network: Network, top: Sequence[str], calls: Sequence[str]) -> tuple[Stage, ...]:
    """Return the trunk's stages in depth order.

    Args:
        network: The network.
        top: Names of the modules that come after the embedding.
        calls: Names of the submodules in the order in which the trunk finishes them.

    Returns:
        Stages that hold every parameter of the trunk exactly once; layers without parameters belong
        to the stage that they follow.
    """
    groups: list[list[str]] = []
    for names in network.groups:
        kept = [name for name in names if not within(name, top)]
        # A last norm that stood with the head, or what only the pooling runs.
        below = any(name.rpartition(".")[0] in calls for name in kept)
        if groups and (len(kept) < len(names) or not below):
            groups[-1].extend(kept)
        elif kept:
            groups.append(kept)
    every = [name for name, _ in network.module.named_parameters()]
    covers = [_cover(group, every) for group in groups]
    _attach_plain_layers(network.module, covers, calls)
    stages = []
    for group, cover in zip(groups, covers, strict=True):
        modules = [name for name in cover if name not in every]
        ran = [name for name in calls if name in modules]
        stages.append(
            Stage(
                name=modules[0] if modules else cover[0],
                modules=tuple(modules),
                parameters=tuple(group),
                output=ran[-1] if ran else "",
            )
        )
    return tuple(stages)


def child_groups(module: nn.Module, containers: Containers) -> tuple[tuple[str, ...], ...]:
    """Return the parameters of each block, in the order in which a network holds its blocks.

    Args:
        module: A network without a recipe of its own for its depth order.
        containers: Types that only hold blocks and are looked into.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 2))
        >>> [group[0] for group in child_groups(net, (nn.Sequential,))]
        ['0.weight', '2.weight']
    """
    groups: list[list[str]] = []
    loose: list[str] = []  # held by no block, such as a class token: they go with the next block
    for place, child in _listed_blocks(module, containers):
        whole = child is not module and type(child) not in containers
        names = [name for name, _ in child.named_parameters(prefix=place, recurse=whole)]
        if not whole:
            loose += names
        elif isinstance(child, _NORMS) and groups:
            groups[-1] += names
        elif names:
            groups.append([*loose, *names])
            loose = []
    return tuple(tuple(group) for group in groups)


def within(name: str, parts: Sequence[str]) -> bool:
    """Return whether ``name`` is one of ``parts`` or inside one of them.

    Example:
        >>> within("head.fc.weight", ("head",)), within("header", ("head",))
        (True, False)
    """
    return any(name == part or name.startswith(part + ".") for part in parts)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of the table.

    Args:
        name: The module's name in the network; "" is the network itself.
        type: The module's class.
        output_shape: Shape of its output for one picture, without the batch axis.
        parameters: How many numbers it holds itself, its submodules' not counted.
        trainable: How many of them are not frozen.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Size:
    """How large a network is: sums over its layers.

    Args:
        layers: How many there are.
        weighted: How many of them have parameters.
        parameters: How many numbers they hold.
        trainable: How many of these are not frozen.
    """

    layers: int
    weighted: int
    parameters: int
    trainable: int

    def __str__(self) -> str:
        frozen = self.parameters - self.trainable
        return (
            f"{self.layers} layers, {self.weighted} with parameters; {self.parameters:,} "
            f"parameters, {self.trainable:,} trainable, {frozen:,} frozen"
        )


def total(layers: Sequence[Layer]) -> Size:
    """Return the sums over the rows of a table.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU())
        >>> str(total(layer_table(net, lambda: net(torch.zeros(1, 3, 8, 8)))))
        '2 layers, 1 with parameters; 1,792 parameters, 1,792 trainable, 0 frozen'
    """
    weighted = sum(layer.parameters > 0 for layer in layers)
    parameters = sum(layer.parameters for layer in layers)
    return Size(len(layers), weighted, parameters, sum(layer.trainable for layer in layers))


def layer_table(
    module: nn.Module, run: Callable[[], Any], *, without: Sequence[str] = (), blocks: bool = False
) -> list[Layer]:
    """Return the layers that ``run`` calls, in the order in which they finish.

    Listed are modules without submodules and modules with parameters of their own. A layer that is
    called several times is listed once; one whose parameters are used without a call comes first.

    Args:
        module: The network.
        run: A forward pass of one picture.
        without: Names of the parts to leave out.
        blocks: Whether a block of several layers, such as an Inception module, is listed as one.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU())
        >>> [row.parameters for row in layer_table(net, lambda: net(torch.zeros(1, 3, 8, 8)))]
        [1792, 0]
    """
    listed = _listed_blocks(module) if blocks else _listed_layers(module)
    layers = {name: child for name, child in listed if not within(name, without)}
    held: dict[str, list[nn.Parameter]] = {}
    for name, child in layers.items():
        whole = child.named_parameters(prefix=name, recurse=blocks and child is not module)
        held[name] = [own for full, own in whole if not within(full, without)]
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        shapes.setdefault(name, tuple(first.shape[1:]) if isinstance(first, Tensor) else ())

    with watched(layers, note):
        run()
    uncalled = [name for name in layers if name not in shapes and held[name]]
    return [
        Layer(
            name=name,
            type=type(layers[name]).__name__,
            output_shape=shapes.get(name, ()),
            parameters=sum(own.numel() for own in held[name]),
            trainable=sum(own.numel() for own in held[name] if own.requires_grad),
        )
        for name in (*uncalled, *shapes)
    ]


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return what does not fit between a network and a file, or "" if all does.

    Example:
        >>> misfit({"a": torch.zeros(2)}, {"b": torch.zeros(2)})
        '1 missing (a); 1 unexpected (b)'
    """
    shapes = [
        f"{name} is {_shape(given[name])}, expected {_shape(own[name])}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for what, names in problems.items()
        if names
    )


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 over all tensors of a network in the order of their names.

    Example:
        >>> state_sha256(nn.Linear(2, 1)) == state_sha256(nn.Linear(2, 1))
        False
    """
    rows = []
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        data = plain.flatten().view(torch.uint8).numpy().data
        rows.append([name, str(plain.dtype), list(plain.shape), sha256_bytes(data)])
    return sha256_json(rows)


def _cover(group: Sequence[str], every: Sequence[str]) -> list[str]:
    """Return the fewest modules (or single parameters) that hold the group and nothing else."""
    members = set(group)
    foreign = [name for name in every if name not in members]
    cover: list[str] = []
    for name in group:
        if not within(name, cover):
            parts = name.split(".")
            prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts))]
            own = [one for one in prefixes if not any(within(other, (one,)) for other in foreign)]
            cover.append(own[0] if own else name)
    return cover


def _attach_plain_layers(module: nn.Module, covers: list[list[str]], calls: Sequence[str]) -> None:
    """Give each activation, pooling or other layer without parameters to the stage it follows."""
    if not covers:
        return
    current = 0
    for name in calls:
        inside = next((i for i, cover in enumerate(covers) if within(name, cover)), None)
        if inside is not None:
            current = inside
        elif calls.count(name) == 1 and next(module.get_submodule(name).parameters(), None) is None:
            covers[current].append(name)


def _has_own(module: nn.Module) -> bool:
    """Return whether a module holds parameters itself, not in its submodules."""
    return next(module.parameters(recurse=False), None) is not None


def _listed_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_modules():
        if _has_own(child) or next(child.children(), None) is None:
            yield name, child


def _listed_blocks(
    module: nn.Module, containers: Containers = (nn.Sequential, nn.ModuleList), prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    if _has_own(module):
        yield prefix.rstrip("."), module
    for name, child in module.named_children():
        # Exactly these types: a block that derives from Sequential is one block.
        if type(child) in containers:
            yield from _listed_blocks(child, containers, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _shape(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) or "one number"

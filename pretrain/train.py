"""Train `regraft_mini` on labels and teachers together, for a given number of minutes.

The schedule follows the share of the time that has passed, so that every run ends annealed however
busy the machine is. Started again with the same folder, it resumes from its last checkpoint.

Each worker is a process with one thread, and the workers average their gradients: on a machine
that others use too, threads of one process spend nine tenths of their time waiting for each other
in oneDNN's barriers, processes do not.

    python pretrain/train.py --data WORK --out RUN --minutes 90
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from views import Batch, Pictures

from regraft.backbones.mini import DEEPEST, RegraftMini
from regraft.system import has_bf16

CLASSES = 202
TEACHER_CLASSES = 1000
KEPT = "vit"  # the teacher whose features the backbone goes on guessing
AVERAGED = 5  # steps between two updates of the averaged weights


@dataclass(frozen=True)
class Settings:
    """What may be changed about a run; weights are those of the terms of the loss.

    `kept` is the weight of the features whose guesses the backbone keeps.
    """

    batch: int = 256
    rate: float = 0.25
    decay: float = 2e-4
    warmup: float = 0.03
    smoothing: float = 0.1
    probabilities: float = 1.0
    features: float = 1.5
    kept: float = 3.0
    mixing: float = 0.0
    average: float = 0.98
    smallest: int = 48


def deepest(backbone: RegraftMini, images: Tensor) -> Tensor:
    """Return the 512 maps in front of the backbone's last layer."""
    maps = backbone.stage3(backbone.stage2(backbone.stage1(backbone.stem(images))))
    return nn.Sequential(*list(backbone.head)[:-1])(maps[:, : backbone.head.inputs])


class Student(nn.Module):
    """The backbone with one linear head per target, all on its 512 deepest maps.

    The heads are thrown away in the end, but for the guesses of ViT-Tiny's features: they become
    the backbone's last layer, which rests until then.
    """

    def __init__(self, widths: dict[str, int]) -> None:
        super().__init__()
        self.autocast = has_bf16("cpu")
        self.backbone = RegraftMini()
        width = DEEPEST
        self.labels = nn.Linear(width, CLASSES)
        self.probabilities = nn.Linear(width, TEACHER_CLASSES)
        self.features = nn.ModuleDict({key: nn.Linear(width, w) for key, w in widths.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return label logits, teacher logits and the guessed features of each teacher."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            maps = deepest(self.backbone, images)
        pooled = maps.float().mean((2, 3))
        guesses = {key: head(pooled) for key, head in self.features.items()}
        return self.labels(pooled), self.probabilities(pooled), guesses


def picture_size(share: float, step: int) -> int:
    """Return the side of the pictures: small ones first, then a mixture that grows.

    A step at 48 px costs a quarter of one at 96; the mixture keeps the network good at many sizes.
    """
    if share < 0.25:
        return 48
    if share < 0.4:
        return 64
    return (64, 96)[step % 2] if share < 0.75 else (96, 128, 96, 64)[step % 4]


def learning_rate(share: float, settings: Settings) -> float:
    """Return the rate after this share of the time: a short rise, then a cosine down to zero."""
    if share < settings.warmup:
        return settings.rate * max(share / settings.warmup, 0.02)
    rest = (share - settings.warmup) / (1 - settings.warmup)
    return settings.rate * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def mix(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Paste a part of each image into its partner; return images, order and the share kept."""
    share = float(torch.distributions.Beta(1.0, 1.0).sample())
    size = batch.images.shape[-1]
    side = int(size * (1 - share) ** 0.5)
    top, left = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
    order = torch.randperm(len(batch.images), generator=generator)
    images = batch.images.clone()
    rows, columns = slice(top, top + side), slice(left, left + side)
    images[:, :, rows, columns] = batch.images[order][:, :, rows, columns]
    return images, order, 1 - side**2 / size**2


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of values (n,) under weights (n,)."""
    return (values * weights).sum() / weights.sum().clamp(min=1)


def losses(
    student: Student, batch: Batch, settings: Settings, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the terms of the loss, already weighted."""
    images, order, kept = batch.images, torch.arange(len(batch.images)), 1.0
    mixed = float(torch.rand((), generator=generator)) < settings.mixing
    if mixed:
        images, order, kept = mix(batch, generator)
    labels, probabilities, guesses = student(images)
    terms = {"labels": torch.zeros(()), "probabilities": torch.zeros(())}
    for share, rows in ((kept, slice(None)), (1 - kept, order)):
        if share == 0:
            continue
        each = cross_entropy(
            labels, batch.labels[rows], reduction="none", label_smoothing=settings.smoothing
        )
        terms["labels"] = terms["labels"] + share * weighted(each, batch.labelled[rows])
        each = -(batch.probabilities[rows] * log_softmax(probabilities, dim=1)).sum(1)
        term = settings.probabilities * share * weighted(each, batch.taught[rows])
        terms["probabilities"] = terms["probabilities"] + term
    if not mixed:
        for key, guess in guesses.items():
            distance = 1 - cosine_similarity(guess, batch.features[key])
            weight = settings.kept if key == KEPT else settings.features
            terms[key] = weight * weighted(distance, batch.taught)
    return terms


class Training:
    """One run: student, optimiser, average and clock, with its checkpoint and its log."""

    def __init__(
        self, pictures: Pictures, out: Path, minutes: float, settings: Settings, *, rank: int = 0
    ) -> None:
        self.pictures, self.out, self.settings, self.rank = pictures, out, settings, rank
        self.seconds, self.clock, self.budget = 0.0, 0.0, minutes * 60
        self.step = self.images = 0
        widths = {key: len(mean) for key, (mean, _) in pictures.scale.items()}
        self.student = Student(widths).to(memory_format=torch.channels_last)
        matrices = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.SGD(
            [{"params": matrices, "weight_decay": settings.decay}, {"params": others}],
            lr=settings.rate,
            momentum=0.9,
            nesterov=True,
            fused=True,
        )
        average = get_ema_multi_avg_fn(settings.average)
        self.average = AveragedModel(self.student, multi_avg_fn=average, use_buffers=True)
        self.generator = torch.Generator().manual_seed(1)  # the same in every worker

    @property
    def share(self) -> float:
        """The share of the time that has passed, the same in every worker at the same step."""
        return self.clock / self.budget

    def log(self, **facts: object) -> None:
        """Append one line to log.jsonl; only the first worker does."""
        if self.rank:
            return
        line = {"seconds": round(self.seconds), "step": self.step, "images": self.images, **facts}
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; only the first worker does."""
        if self.rank:
            return
        state = {
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict(),
            "counters": [self.seconds, self.step, self.images],
        }
        torch.save(state, self.out / "checkpoint.part")
        (self.out / "checkpoint.part").replace(self.out / "checkpoint.pt")

    def start_from(self, file: Path) -> None:
        """Begin with an earlier run and a new schedule: its average, or the trunk it exported."""
        if file.suffix == ".safetensors":
            state = {name: value.float() for name, value in load_file(file).items()}
            self.student.backbone.load_state_dict(state)
            self.average.module.load_state_dict(self.student.state_dict())
            return
        self.average.load_state_dict(torch.load(file, weights_only=True)["average"])
        self.student.load_state_dict(self.average.module.state_dict())

    def resume(self) -> None:
        """Continue from the checkpoint where there is one."""
        if not (self.out / "checkpoint.pt").exists():
            self.log(settings=asdict(self.settings), minutes=self.budget / 60)
            return
        state = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.student.load_state_dict(state["student"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.load_state_dict(state["average"])
        self.seconds, self.step, self.images = state["counters"]
        self.clock = self.seconds
        self.pictures.generator = np.random.default_rng([self.rank, self.step])

    def update(self, numbers: np.ndarray) -> dict[str, float]:
        """Do one step of the optimiser; return the terms of its loss."""
        start = time.perf_counter()
        rate = learning_rate(self.share, self.settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        size = max(picture_size(self.share, self.step), self.settings.smallest)
        batch = self.pictures.batch(numbers, size)
        terms = losses(self.student, batch, self.settings, self.generator)
        self.optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        self.average_gradients()
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimiser.step()
        if not self.rank and self.step % AVERAGED == 0:
            self.average.update_parameters(self.student)
        self.step += 1
        self.images += len(numbers) * dist.get_world_size()
        # A machine that was put to sleep in a step has not used up the time of the schedule.
        self.seconds += min(time.perf_counter() - start, 10.0)
        return {key: value.item() for key, value in terms.items()}

    def average_gradients(self) -> None:
        """Replace gradients by their mean over the workers, and the clock by the first worker's."""
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
        clock = torch.tensor([0.0 if self.rank else self.seconds])
        flat = torch.cat([*(g.flatten() for g in gradients), clock])
        dist.all_reduce(flat)
        self.clock = float(flat[-1])
        parts = flat[:-1].div_(dist.get_world_size()).split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    @torch.inference_mode()
    def accuracy(self, size: int) -> float:
        """Return the share of the held-out tiles that the averaged student names rightly."""
        images, labels = self.pictures.held_out(size)
        network = self.average.module.eval()
        hits = [
            network(part)[0].argmax(1) == truth
            for part, truth in zip(images.split(256), labels.split(256), strict=True)
        ]
        return float(torch.cat(hits).float().mean())

    def evaluate(self) -> None:
        """Log the held-out accuracy at three sizes and save a checkpoint."""
        if self.rank:
            return
        self.log(held_out={size: round(self.accuracy(size), 4) for size in (64, 96, 128)})
        self.save()

    def run(self) -> None:
        """Train until the time is over; log every 50 steps, checkpoint every three minutes."""
        self.student.train()
        last_save = last_look = self.seconds
        while self.share < 1:
            for numbers in self.pictures.epoch(self.settings.batch // dist.get_world_size()):
                terms = self.update(numbers)
                if self.step % 50 == 0:
                    rate = round(self.optimiser.param_groups[0]["lr"], 5)
                    self.log(rate=rate, **{k: round(v, 4) for k, v in terms.items()})
                if self.seconds - last_look > 480:
                    last_look = last_save = self.seconds
                    self.evaluate()
                elif self.seconds - last_save > 180:
                    last_save = self.seconds
                    self.save()
                if self.share >= 1:
                    break
        self.evaluate()
        if not self.rank:
            torch.save(self.average.module.state_dict(), self.out / "student.pt")


def work(rank: int, arguments: argparse.Namespace) -> None:
    """Be one of the workers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    address = f"file://{(arguments.out / 'rendezvous').resolve()}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=arguments.workers)
    pictures = Pictures(arguments.data, seed=rank)
    settings = Settings(rate=arguments.rate, smallest=arguments.smallest)
    training = Training(pictures, arguments.out, arguments.minutes, settings, rank=rank)
    if arguments.start:
        training.start_from(arguments.start)
    training.resume()
    training.run()
    dist.destroy_process_group()


def main() -> None:
    """Run or resume one training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=Settings.rate, help="highest learning rate")
    parser.add_argument("--smallest", type=int, default=Settings.smallest, help="side in pixels")
    parser.add_argument("--start", type=Path, help="an earlier checkpoint or exported weights")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work, (arguments,), nprocs=arguments.workers)


if __name__ == "__main__":
    main()

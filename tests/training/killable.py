"""A process that has imported everything once and forks trainings that tests kill.

It reads one JSON object per line: ``{"start": job}`` forks a child in a session of its own and
answers with its process id; ``{"wait": pid}`` answers with how it ended. A job says what to train,
where, and with which faults.
"""

import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from pathlib import Path


def run(job):
    """Do a job; what it found stands in ``result.json`` afterwards."""
    import tempfile

    import torch

    torch.set_num_threads(1)
    os.environ.update(job.get("environment", {}))
    tempfile.tempdir = None
    for fault in job.get("faults", ()):
        inject(**fault)
    if job.get("file_limit"):
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"],) * 2)
    if "command" in job:
        from regraft.cli import main

        sys.argv = ["regraft", *job["command"]]
        main()
    else:
        train(job)


def train(job):
    """Fit the learner of a job and write down its weights, history and warnings."""
    from regraft import Dataset, MLPHead, Phase
    from regraft.backbones.network import state_sha256
    from samples import learner as small_learner

    place = Path(job["place"])
    parts = json.loads(Path(job["images"]).read_text())
    held = {name: tuple(values) for name, values in parts["val"].items()}
    arguments = dict(job["learner"])
    every = arguments.pop("checkpoint_every")
    arguments["head"] = MLPHead(**arguments["head"])
    arguments["phases"] = [Phase(**phase) for phase in arguments["phases"]]
    learner = small_learner(**arguments)
    validation = Dataset(**held, classes=tuple(sorted(set(held["labels"]))))
    learner.fit(
        parts["train"]["paths"],
        parts["train"]["labels"],
        validation=validation,
        checkpoints=place / "checkpoints",
        checkpoint_every=every,
    )
    result = {
        "sha256": state_sha256(learner.network_),
        "history": learner.history_,
        "warnings": learner.warnings_,
        "probabilities": learner.predict_proba(held["paths"]).tolist(),
    }
    (place / "result.json").write_text(json.dumps(result))


def inject(calls, *, at=1, after=False, error=None, sleep=None, until=None):
    """Let this process die, sleep, or raise an error at a call.

    Args:
        calls: Dotted names of functions whose calls are counted together.
        at: Which call is hit, from 1.
        after: Whether the call is done first.
        error: The ``errno`` of an OSError to raise in place of dying.
        sleep: Seconds to sleep in place of dying.
        until: The last call that is hit; by default the first one.
    """
    count = 0

    def wrapped(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            hit = at <= count <= (until or at)
            if hit and not after:
                fail()
            result = function(*arguments, **options)
            if hit and after:
                fail()
            return result

        return call

    def fail():
        if sleep is not None:
            time.sleep(sleep)
            return
        if error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(error, os.strerror(error))

    for name in calls:
        owner, _, attribute = name.rpartition(".")
        found = pkgutil.resolve_name(owner)
        setattr(found, attribute, wrapped(getattr(found, attribute)))


def child(job):
    """Do a job in this process and leave with its exit code."""
    place = Path(job["place"])
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    code = 0
    try:
        run(job)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    import atexit

    atexit._run_exitfuncs()  # files that go with an interpreter are removed
    os._exit(code)


def main():
    """Answer requests until there are no more."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import PIL.PngImagePlugin  # noqa: F401
    import torch

    import regraft.cli.app
    import regraft.experiment.run  # noqa: F401
    import samples  # noqa: F401

    torch.set_num_threads(1)
    weight = torch.ones(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()  # the first step of a process imports much
    print(json.dumps("ready"), flush=True)
    for request in map(json.loads, sys.stdin):
        if "start" in request:
            pid = os.fork()
            if not pid:
                child(request["start"])
            print(json.dumps(pid), flush=True)
        else:
            _, status = os.waitpid(request["wait"], 0)
            print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()

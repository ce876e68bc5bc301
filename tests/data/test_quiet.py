"""Image libraries stay quiet, and everybody else is still heard."""

import contextlib
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from regraft.data.quiet import native_stderr_silenced, pillow_allows, pillow_warnings_ignored


def warn_as(module):
    warnings.warn_explicit("odd", UserWarning, "file.py", 1, module=module)


def test_only_warnings_from_pillow_are_ignored():
    with pillow_warnings_ignored():
        warn_as("PIL.TiffImagePlugin")
        with pytest.raises(UserWarning, match="odd"):
            warn_as("numpy")

    with pytest.raises(UserWarning, match="odd"):
        warn_as("PIL.TiffImagePlugin")


def test_the_filters_are_as_before_after_many_threads():
    before = list(warnings.filters)

    def work(_):
        with pillow_warnings_ignored():
            warn_as("PIL.Image")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))

    assert list(warnings.filters) == before


@pytest.mark.parametrize("own", [100, None])
def test_the_limit_of_pillow_is_raised_while_any_thread_needs_it(own, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own)
    limits = []

    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        for stack, pixels in ((first, 300), (second, 50)):  # as two threads that overlap
            stack.enter_context(pillow_allows(pixels))
            limits.append(Image.MAX_IMAGE_PIXELS)
        first.close()
        limits.append(Image.MAX_IMAGE_PIXELS)

    assert limits == [own and 300] * 3
    assert own == Image.MAX_IMAGE_PIXELS


def run(body):
    program = "import os, sys\nfrom regraft.data.quiet import native_stderr_silenced\n"
    done = subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr.split()


def test_lines_from_c_are_silenced_and_those_from_python_are_not():
    heard = run("""
        with native_stderr_silenced():
            os.write(2, b"from-c\\n")
            print("from-python", file=sys.stderr)
            with native_stderr_silenced():
                os.write(2, b"from-c\\n")
            os.write(2, b"from-c\\n")
        os.write(2, b"after\\n")
        print("python-after", file=sys.stderr)
    """)

    assert heard == ["from-python", "after", "python-after"]


def test_standard_error_comes_back_after_an_exception():
    heard = run("""
        try:
            with native_stderr_silenced():
                raise ValueError
        except ValueError:
            os.write(2, b"after\\n")
    """)

    assert heard == ["after"]


def test_it_works_without_standard_error():
    heard = run("""
        os.close(2)
        sys.stderr = None
        with native_stderr_silenced():
            pass
    """)

    assert heard == []


def test_a_captured_stderr_is_left_alone(capsys):
    with native_stderr_silenced():
        print("heard", file=sys.stderr)

    assert capsys.readouterr().err == "heard\n"

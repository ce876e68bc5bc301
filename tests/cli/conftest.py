"""The command line, called in the process of the tests."""

import pytest
from typer.testing import CliRunner

from regraft.cli.app import app


@pytest.fixture(scope="session")
def regraft():
    """Return a function that calls the command line and raises what a command raises."""

    def call(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result

    return call

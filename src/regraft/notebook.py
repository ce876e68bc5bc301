"""How values show themselves in a notebook."""

from importlib import import_module


class ShownInNotebook:
    """A value that a notebook shows as a small piece of HTML, without any script.

    What is shown is said in ``report/notebook.py``, where all pages are made. That stands above the
    values, so it is found by its name, and only when somebody looks.
    """

    def _repr_html_(self) -> str:
        return str(import_module("regraft.report.notebook").html(self))

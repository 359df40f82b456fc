"""`python -m antiphon`: the same as the command `antiphon`."""

from antiphon.cli import app

app()

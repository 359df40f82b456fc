"""`python -m antiphon`, which is the same as the command `antiphon`."""

from antiphon.cli.main import app

app()

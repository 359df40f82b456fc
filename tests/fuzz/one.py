"""Fuzz one target, guided by coverage, with libFuzzer's options: `python -m tests.fuzz.one NAME -max_total_time=60 FOLDER`."""

import sys

import atheris
import structlog

with atheris.instrument_imports(include=["antiphon"]):
    from tests.fuzz.targets import TARGETS

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
name = sys.argv.pop(1)
atheris.Setup(sys.argv, TARGETS[name])
atheris.Fuzz()

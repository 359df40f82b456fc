"""The fuzz targets without a fuzzer: its seeds, and a few random inputs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_what_it_is_given(name: str) -> None:
    """No target fails for its seeds, for any prefix of a seed, or for random bytes and words."""
    seeds, run = SEEDS[name], TARGETS[name]
    for seed in seeds.inputs:
        for end in range(len(seed) + 1):
            run(seed[:end])
    words = st.sampled_from([word.encode() for word in seeds.words] or [b""])

    @settings(max_examples=settings.default.max_examples // 2)
    @given(st.lists(st.one_of(st.binary(max_size=20), words), max_size=20).map(b"".join))
    def anything(data: bytes) -> None:
        run(data)

    anything()

"""Affinity of conversations: the same conversation goes to the same candidate, whose cache has its beginning. No I/O.

Rendezvous hashing: each candidate gets a score from its name and the conversation, and the highest score wins. If one leaves, only
its own conversations move. The load is bounded: a candidate that has more than `BOUND` times its share of the calls in flight is
passed over (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

from antiphon.routing.balance import Load

BOUND: Final = 1.25
"""The most calls in flight at a candidate, as a multiple of its share by weight."""


def prefer(conversation: bytes, names: Sequence[str], loads: Sequence[Load]) -> int:
    """Return the index of the candidate for a conversation. `names` and `loads` have one entry per candidate, and at least one."""
    weights = sum(load.weight for load in loads)
    calls = sum(load.in_flight for load in loads) + 1
    order = sorted(range(len(names)), key=lambda index: _score(conversation, names[index], loads[index].weight), reverse=True)
    for index in order:
        if loads[index].in_flight + 1 <= math.ceil(BOUND * calls * loads[index].weight / weights):
            return index
    return order[0]


def _score(conversation: bytes, name: str, weight: float) -> float:
    """Return a score that is the highest one in proportion to the weight."""
    digest = hashlib.blake2b(conversation, key=hashlib.blake2b(name.encode(), digest_size=16).digest(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2**64
    return -weight / math.log(uniform)

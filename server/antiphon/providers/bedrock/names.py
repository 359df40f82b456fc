"""Names of tools and ids of calls in the form that the Converse API accepts. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html. Other names and ids are replaced, in the same
way in each request. The names are put back in the reply.
"""

from __future__ import annotations

import re
from typing import Final

from antiphon.providers.codec.names import NameRule

_LENGTH: Final = 64

NAMES: Final = NameRule(re.compile(r"[a-zA-Z0-9_-]+"), re.compile(r"[^a-zA-Z0-9_-]"), _LENGTH)
CALL_IDS: Final = NameRule(re.compile(r"[a-zA-Z0-9_.:-]+"), re.compile(r"[^a-zA-Z0-9_.:-]"), _LENGTH)

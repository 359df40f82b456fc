"""Names of tools in the form that Cohere's API accepts. No I/O.

https://docs.cohere.com/v1/reference/chat#request.body.tools: letters, digits and "_", not beginning with a digit; the current API
takes "-" too. Other names are replaced, and put back in the reply.
"""

from __future__ import annotations

import re
from typing import Final

from antiphon.providers.codec.names import NameRule

NAMES: Final = NameRule(re.compile(r"[A-Za-z_][A-Za-z0-9_-]*"), re.compile(r"[^A-Za-z0-9_-]"), 256)

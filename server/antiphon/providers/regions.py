"""The addresses of AWS services by region. No I/O.

https://docs.aws.amazon.com/general/latest/gr/bedrock.html. The regions of one partition have one domain, and a prefix in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from antiphon.config import ConfigError

RUNTIME: Final = "bedrock-runtime"
CONTROL: Final = "bedrock"
STS: Final = "sts"

_REGION: Final = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-[0-9]{1,2}")
_IN_HOST: Final = re.compile(rf"(?:^|\.){RUNTIME}(?:-fips)?\.({_REGION.pattern})\.")

_DOMAINS: Final = (
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
)
_DOMAIN: Final = "amazonaws.com"


def endpoint(service: str, region: str) -> str:
    """Return the base URL of a service. Raises `ConfigError` if `region` is not the name of one."""
    if not _REGION.fullmatch(region):
        raise ConfigError(f'{region!r} is not an AWS region, such as "eu-central-1"')
    domain = next((domain for prefix, domain in _DOMAINS if region.startswith(prefix)), _DOMAIN)
    return f"https://{service}.{region}.{domain}"


def region_in(environment: Mapping[str, str]) -> str | None:
    """Return the region that the environment names; None if it names none."""
    return environment.get("AWS_REGION", "").strip() or environment.get("AWS_DEFAULT_REGION", "").strip() or None


def region_of(host: str) -> str | None:
    """Return the region in the name of a host of Bedrock, which may be that of a VPC endpoint; None if there is none."""
    found = _IN_HOST.search(host)
    return None if found is None else found[1]

"""Addresses of AWS services by region."""

import pytest
from botocore.session import get_session

from antiphon.config import ConfigError
from antiphon.providers.regions import CONTROL, RUNTIME, STS, endpoint, region_in, region_of

REGIONS = (
    "us-east-1",
    "eu-central-1",
    "us-gov-west-1",
    "cn-north-1",
    "eusc-de-east-1",
    "us-iso-east-1",
    "us-isob-east-1",
    "eu-isoe-west-1",
)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", [RUNTIME, CONTROL, STS])
def test_addresses(service: str, region: str) -> None:
    """They are those that AWS's own client calls."""
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client = get_session().create_client(service, region_name=region, **keys)
    assert endpoint(service, region) == client.meta.endpoint_url


@pytest.mark.parametrize("region", ["", "europe", "eu-central-1.evil.test", "eu-central-1/", "EU-CENTRAL-1", "a" * 99])
def test_other_names(region: str) -> None:
    """What is no region makes no address."""
    with pytest.raises(ConfigError, match="is not an AWS region"):
        endpoint(RUNTIME, region)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-0a1b.bedrock-runtime.us-east-1.vpce.amazonaws.com", "us-east-1"),
        ("bedrock-runtime.x.test", None),
        ("127.0.0.1", None),
    ],
)
def test_regions_of_hosts(host: str, region: str | None) -> None:
    """The host of a region or of a VPC endpoint names its region."""
    assert region_of(host) == region


def test_the_environment() -> None:
    """AWS_REGION counts more than AWS_DEFAULT_REGION."""
    assert region_in({}) is None
    assert region_in({"AWS_REGION": " ", "AWS_DEFAULT_REGION": "b"}) == "b"
    assert region_in({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}) == "a"

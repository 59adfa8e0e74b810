"""What is said of a server's settings."""

import pytest

from navarch_common.store.base import StoreError
from navarch_common.store.redis_settings import check_settings

GOOD = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (GOOD, []),
        (GOOD | {"appendfsync": "everysec"}, ["appendfsync everysec"]),
        (GOOD | {"appendonly": "no"}, ["appendonly off"]),
        ({}, ["does not tell its settings"]),
    ],
    ids=["as recommended", "everysec", "no log", "hidden"],
)
def test_weaker_settings_are_told(settings: dict[str, str], said: list[str]) -> None:
    told = check_settings({"redis_version": "7.2.4"}, settings)
    assert len(told) == len(said)
    assert all(words in sentence for words, sentence in zip(said, told, strict=True))


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(policy: str) -> None:
    with pytest.raises(StoreError, match=policy):
        check_settings({"redis_version": "7.2.4"}, GOOD | {"maxmemory-policy": policy})


@pytest.mark.parametrize("version", ["5.0.14", "6.0.9"])
def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(StoreError, match=version):
        check_settings({"redis_version": version}, GOOD)

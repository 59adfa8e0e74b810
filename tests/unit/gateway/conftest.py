from collections.abc import AsyncIterator

import pytest

from support.gateway_world import GatewayWorld, gateway_world


@pytest.fixture
async def gateway() -> AsyncIterator[GatewayWorld]:
    """A gateway with the fleet of `support.gateway_world`, its cache filled."""
    async with gateway_world() as made:
        yield made

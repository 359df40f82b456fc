"""Signatures and encrypted reasoning over two deployments and two replicas: nobody is sent what only another one can read."""

import asyncio
from pathlib import Path

from tests.e2e.conftest import READY, Gateway
from tests.e2e.many_loops import run_loops
from tests.strict.pair import StrictPair

LOOPS, TURNS = 200, 4


async def test_200_tool_loops_over_two_deployments_and_two_replicas(tmp_path: Path) -> None:
    """Loops with signatures of Anthropic and Gemini and encrypted reasoning of OpenAI are never refused for their state.

    Each turn goes to the other replica, and every twentieth request meets a deployment that is out of order, so that its loop goes
    on at the other one. There, signatures stay as they are, since any deployment of their provider takes them; items of the
    Responses API are left out. Users of other gateways complain that such items go to a deployment that cannot read them.
    """
    async with StrictPair() as strict:
        config = {
            "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
            "models": {"default": strict.model("anthropic")},
            "providers": strict.providers(),
        }
        gateways = []
        for replica in ("first", "second"):
            (tmp_path / replica).mkdir()
            gateways.append(Gateway(tmp_path / replica, config))
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_for, READY)
        made = await run_loops(gateways, strict, LOOPS, TURNS)
        assert strict.refused == []
        assert made == LOOPS * TURNS
        assert strict.out_of_order > made // 25
        used = [len(each.requests) for each in strict.deployments.values()]
        assert min(used) > made // 5, "both deployments took part"
        for gateway in gateways:
            assert gateway.output_text.count('"event":"call"') > made // 3, "both replicas took part"
            assert await asyncio.to_thread(gateway.stop) == 0
            assert "call_failed" not in gateway.output_text

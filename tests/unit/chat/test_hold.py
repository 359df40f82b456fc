"""Tests of holding back the first events of a reply."""

from antiphon.chat.hold import MAX_HELD, HoldBack
from antiphon.chat.stopwatch import Stopwatch
from antiphon.domain.call import Call
from antiphon.domain.events import Batch, ExtraFields, TextDelta, Usage
from antiphon.domain.request import ChatRequest
from tests.unit.listener import Listener
from tests.unit.scripted import START


def take(hold: HoldBack, watch: Stopwatch, batch: Batch) -> Batch:
    """Measure a batch, and pass it on."""
    watch.see(batch)
    return hold.take(batch)


def test_the_first_token_is_reported_once() -> None:
    """The observer gets `first_token` once, with the first delta, even if earlier events without a delta were already released."""
    for first in ([START, ExtraFields(0, {"content": ["odd"]})], [START, *[ExtraFields(0, {})] * MAX_HELD]):
        listener = Listener()
        call = Call(observer=listener)
        watch = Stopwatch(ChatRequest("m", (), stream=True))
        hold = HoldBack(call, watch)
        assert take(hold, watch, [*first])
        assert listener.events == []
        assert hold.is_needed
        assert take(hold, watch, [TextDelta(0, "a")])
        assert not hold.is_needed
        assert take(hold, watch, [TextDelta(0, "b")])
        assert listener.events == ["first_token"]
        assert call.first_token is not None


def test_usage_is_not_passed_on() -> None:
    """Usage within a reply is measured and not sent; a batch of nothing else is nothing."""
    watch = Stopwatch(ChatRequest("m", (), stream=True))
    hold = HoldBack(Call(), watch)
    assert take(hold, watch, [START, Usage(5, 1, 6)]) == []
    assert take(hold, watch, [Usage(5, 2, 7)]) == []
    assert take(hold, watch, [TextDelta(0, "a"), Usage(5, 3, 8)]) == [START, TextDelta(0, "a")]
    assert take(hold, watch, [Usage(5, 4, 9)]) == []
    assert watch.usage() == Usage(5, 4, 9)

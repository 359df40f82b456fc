"""An observer that records its events."""

from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError


class Listener(Observer):
    """An observer with the names of its events in order (`events`) and the errors of attempts and calls (`errors`)."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.errors: list[BaseException | None] = []

    def started(self, call: Call) -> None:
        self.events.append("started")

    def admitted(self, call: Call) -> None:
        self.events.append("admitted")

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        self.events.append("attempt_started")

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        self.events.append("attempt_ended")
        self.errors.append(error)

    def first_token(self, call: Call) -> None:
        assert call.first_token is not None
        self.events.append("first_token")

    def settled(self, call: Call) -> None:
        self.events.append("settled")

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        assert seconds >= 0
        self.events.append("cancelled_upstream")

    def turn_ended(self, call: Call, outcome: str) -> None:
        self.events.append("turn_ended")

    def stopped(self) -> None:
        self.events.append("stopped")

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        self.events.append("ended")
        self.errors.append(error)

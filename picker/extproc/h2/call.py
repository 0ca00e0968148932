"""What a gRPC method implements, and what it is given. No frames, no sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from picker.extproc.h2.status import Status


class Responder(Protocol):
    """The stream of a call, for answers that do not come at once. After the call has ended, all of it does nothing."""

    def send(self, message: bytes) -> None:
        """Queue one message."""

    def finish(self, status: Status, text: str = "") -> None:
        """End the call."""


class Call(Protocol):
    """One call. Messages are handled one after the other and answered at once, or later through the Responder."""

    @property
    def finished(self) -> bool:
        """Everything has been said: the call ends with OK."""

    def message(self, data: bytes) -> Sequence[bytes]:
        """The replies to one message. Raises StatusError to end the call; anything else that is raised ends it with INTERNAL."""

    def half_closed(self) -> bool:
        """The client will send no more. True: so end the call with OK. Raises StatusError."""

    def end(self, status: Status) -> None:
        """The call is over, whatever ended it; called exactly once."""


Method = Callable[[Responder], Call]
Methods = dict[bytes, Method]
"""By path, `/package.Service/Method`."""

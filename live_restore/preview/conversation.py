"""What a viewer says to the restore process, and what it believes of it: newest wins.

Receives a viewer's wishes and the messages that arrive; hands on the next message to send and the views worth showing.
Pure: it knows no sockets, threads or clocks; whoever calls it says what time it is.

A viewer is asked for nothing it cannot take: one wish brings one view. So whatever is slow, the network, the web server
or the browser, the view that comes next is the newest there is then, and nothing piles up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from live_restore.preview.windows import Window
from live_restore.wire.messages import Ask, Hello, Message, View, Welcome

WAIT_MS = 500
_HELLO_EVERY_S = 0.5
_RETRY_S = 0.1
# While somebody drags the z slider, no more questions than this are open.
_MOST_OPEN = 2
# Nothing heard for this long after a question: the restore process is gone.
_QUIET_S = 2.0
# An answer that takes longer than the wait and this is given up, and the question asked again.
_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a viewer wants to see next, and that it can take one view now.

    Attributes
    ----------
    serial : int
        Counts up with every change of what is wanted; handed back with the view, which tells old answers from new.
    position, channel : str
        Empty: whichever is newest.
    z : int
        Index of a plane; -1 for the maximum projection.
    trust : bool
        Whether the trust map is wanted too.
    window : Window
        Which part of the image; another part of the same view needs no new question.
    """

    serial: int = 0
    position: str = ""
    channel: str = ""
    z: int = -1
    trust: bool = False
    window: Window = field(default_factory=Window)

    @property
    def subject(self) -> tuple[str, str, int, bool]:
        """What the restore process is asked for."""
        return self.position, self.channel, self.z, self.trust


@dataclass(frozen=True, slots=True)
class Link:
    """How it stands between the viewer and the restore process.

    Attributes
    ----------
    state : {"seeking", "live", "gone", "failed"}
        ``seeking``: it has not been heard yet; ``gone``: it was, and is silent; ``failed``: the address cannot be used.
    session : str
        Which start of the restore process.
    heard_s : float
        When it was last heard, on the clock of the caller.
    why : str
        For ``failed``, in words.
    """

    state: Literal["seeking", "live", "gone", "failed"] = "seeking"
    session: str = ""
    heard_s: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A view and the wish that it answers."""

    view: View
    wish: Wish
    session: str


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    subject: tuple[str, str, int, bool]
    asked_s: float


class Conversation:
    """One viewer's side of the protocol.

    Parameters
    ----------
    software : str
        How the viewer introduces itself.
    """

    def __init__(self, software: str = "") -> None:
        self.link = Link()
        self._software = software
        self._wish: Wish | None = None
        self._ready = self._again = False
        self._asked: list[_Asked] = []
        self._held: View | None = None  # the view that was given for this subject
        self._status: Mapping[str, Any] = {}  # the last that came; views bring it only where it is new
        self._hello_s = float("-inf")
        self._unanswered_s: float | None = None  # since when there has been a question and no word

    def wish(self, wish: Wish) -> None:
        """Note that the viewer can take one view, and of what."""
        before, self._wish, self._ready = self._wish, wish, True
        if before is None or before.subject != wish.subject:
            self._held = None
        self._again = self._held is not None and before is not None and before.window != wish.window

    def again(self) -> Seen | None:
        """Give the view that the viewer has, if it wants to see another part of it."""
        if not (self._again and self._held and self._wish):
            return None
        self._again = self._ready = False
        return Seen(self._held, self._wish, self.link.session)

    def next_message(self, now_s: float) -> Message | None:
        """Decide what to say now; None: nothing. Tell `sent` if it went out."""
        self._give_up_waiting(now_s)
        if self.link.state != "live":
            return Hello("viewer", self._software) if now_s - self._hello_s >= _HELLO_EVERY_S else None
        wish = self._wish
        if self._ready and wish and len(self._asked) < _MOST_OPEN and wish.subject not in self._asked_subjects():
            after = self._held.number if self._held else 0
            return Ask(after, wish.position, wish.channel, wish.z, wish.trust, WAIT_MS, sparing=True)
        return None

    def sent(self, message: Message, now_s: float) -> None:
        """Note that a message went out."""
        if isinstance(message, Hello):
            self._hello_s = now_s
        elif self._wish:
            self._asked.append(_Asked(self._wish.subject, now_s))
            self._unanswered_s = now_s if self._unanswered_s is None else self._unanswered_s

    def unsent(self, now_s: float) -> None:
        """Note that a message could not go out: nobody is there to take it."""
        if self.link.state == "live" and now_s - self.link.heard_s > _QUIET_S:
            self._lose()
        self._hello_s = now_s - _HELLO_EVERY_S + _RETRY_S

    def hear(self, message: Message, now_s: float) -> Seen | None:
        """Take a message; give the view to show, if it is one that is still wanted and newer than the last."""
        if isinstance(message, Welcome):
            self._meet(message.session, now_s)
        elif isinstance(message, View):
            self._meet(_session_of(message.status) or self.link.session, now_s)
            self._status = message.status or self._status
            return self._judge(replace(message, status=self._status))
        return None

    def _judge(self, view: View) -> Seen | None:
        answered, wish = self._answered(view), self._wish
        if answered is None or wish is None or answered.subject != wish.subject or not self._ready:
            return None
        if view.raw is not None:
            if self._held and view.number <= self._held.number:
                return None
            self._held = view
        self._ready = False
        return Seen(view, wish, self.link.session)

    def _answered(self, view: View) -> _Asked | None:
        """Which question a view answers: the oldest that it fits; it is then no longer open."""
        fitting = [asked for asked in self._asked if view.raw is None or _fits(view, asked.subject)]
        if not fitting:
            return None
        self._asked.remove(fitting[0])
        return fitting[0]

    def _asked_subjects(self) -> set[tuple[str, str, int, bool]]:
        return {asked.subject for asked in self._asked}

    def _meet(self, session: str, now_s: float) -> None:
        """Hear of the restore process; another session is another process, whose numbers begin anew."""
        if session != self.link.session:
            self._asked, self._held = [], None
        self._unanswered_s = None
        self.link = replace(self.link, state="live", session=session, heard_s=now_s)

    def _give_up_waiting(self, now_s: float) -> None:
        if self._unanswered_s is not None and now_s - self._unanswered_s > _QUIET_S:
            self._lose()
        self._asked = [asked for asked in self._asked if now_s - asked.asked_s < WAIT_MS / 1000 + _GRACE_S]

    def _lose(self) -> None:
        self._asked, self._unanswered_s = [], None
        self.link = replace(self.link, state="gone")


def _fits(view: View, subject: tuple[str, str, int, bool]) -> bool:
    position, channel, z, _ = subject
    if view.key is None:
        return True
    return channel in ("", view.key.channel) and position in ("", view.key.position) and view.z == z


def _session_of(status: Mapping[str, Any]) -> str:
    server = status.get("server")
    return str(server.get("session", "")) if isinstance(server, Mapping) else ""

"""The hooks: which clients send frames, and what they are told: receipts, credit, signs of life, and who we are.

Receives what is to be said; says it over the listener, in the network thread. A receipt that does not go out is said again: a
frame without one would count as lost. It does not know runs or volumes.
"""

from collections import OrderedDict

from live_restore import __version__
from live_restore.wire.messages import Beat, Receipt, Welcome
from live_restore.wire.sockets import Listener

_MS = 1_000_000
# Who speaks of a run that we do not know is told who we are, this often at most.
_WELCOME_NS = 500 * _MS
# A receipt is given up when its client has not read for so long.
_PATIENCE_NS = 10_000 * _MS
_MOST_HOOKS = 1024
Receipts = dict[tuple[bytes, str, str], list[int]]  # client, run and refusal to sequence numbers


class Hooks:
    """The clients that send frames; the network thread's.

    Parameters
    ----------
    listener : Listener
    session : str
        Another one after every start.
    """

    def __init__(self, listener: Listener, session: str) -> None:
        self._listener, self._session = listener, session
        self._welcomed_ns: OrderedDict[bytes, int] = OrderedDict()
        self._receipts: Receipts = {}
        self._told = 0
        self._stuck_ns: dict[bytes, int] = {}

    def meet(self, client: bytes) -> None:
        """Note that a client sends frames, or may."""
        self._welcomed_ns.setdefault(client, 0)
        self._welcomed_ns.move_to_end(client)
        while len(self._welcomed_ns) > _MOST_HOOKS:
            self._welcomed_ns.popitem(last=False)

    def welcome(self, client: bytes, credit: int) -> None:
        """Say who we are."""
        self._told = credit
        self._listener.send(client, Welcome(self._session, f"live_restore {__version__}", credit))

    def introduce(self, client: bytes, credit: int, now_ns: int) -> None:
        """Say who we are to a hook that takes us for an earlier process, unless it was told just now."""
        if now_ns - self._welcomed_ns.get(client, 0) > _WELCOME_NS:
            self.meet(client)
            self._welcomed_ns[client] = now_ns
            self.welcome(client, credit)

    def receipt(self, client: bytes, run: str, sequence: int, refused: str) -> None:
        """Let a frame's receipt be said with the next ones."""
        self._receipts.setdefault((client, run, refused), []).append(sequence)

    @property
    def owed(self) -> bool:
        """Whether receipts are to be said."""
        return bool(self._receipts)

    @property
    def held_back(self) -> bool:
        """Whether the hooks were told last that they must send no volume."""
        return self._told <= 0 and bool(self._welcomed_ns)

    def say_receipts(self, credit: int, now_ns: int) -> None:
        """Say all receipts, many in one."""
        self._told = credit
        receipts, self._receipts = self._receipts, {}
        for (client, run, refused), sequences in receipts.items():
            if self._listener.send(client, Receipt(run, tuple(sequences), credit, refused)):
                self._stuck_ns.pop(client, None)
            elif now_ns - self._stuck_ns.setdefault(client, now_ns) < _PATIENCE_NS:
                self._receipts[client, run, refused] = sequences
            else:
                del self._stuck_ns[client]

    def beat(self, credit: int) -> None:
        """Give every hook a sign of life; who cannot be reached is met again when it says something."""
        self._told = credit
        for client in list(self._welcomed_ns):
            if not self._listener.send(client, Beat(credit=credit)):
                del self._welcomed_ns[client]

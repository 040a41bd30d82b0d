"""Promotion: a model that passed the gate is put to work, in the journal and in a restore process that is running.

Receives a verdict; hands on the journal's new line, and what became of the running process in words. It does not know how the
verdict came about (see `live_restore.evaluation.gate`).
"""

import getpass
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from live_restore.errors import ConfigError, WireError
from live_restore.evaluation.gate import Verdict
from live_restore.models.package import open_package
from live_restore.records.promotions import Promotion, Promotions
from live_restore.serving.models import ModelChoice
from live_restore.wire.messages import Answer, Command
from live_restore.wire.security import ClientKeys
from live_restore.wire.sockets import Caller

# Whether anybody answers shows at once; loading a model and warming it up takes its time.
_ANYBODY_S, _SWAP_S = 2.0, 120.0


def promote(
    promotions: Promotions,
    choice: ModelChoice,
    verdict: Verdict,
    *,
    force: bool = False,
    why: str = "",
    address: str | None = None,
    keys: ClientKeys | None = None,
) -> tuple[Promotion, str]:
    """Put a model to work, if its verdict is good or somebody insists; otherwise write down that it was refused.

    A running restore process gets it first: if that cannot load it, nothing is promoted.

    Parameters
    ----------
    promotions : Promotions
        Of the channel.
    choice : ModelChoice
    verdict : Verdict
    force : bool
        Promote it although something speaks against it.
    why : str
        What the user has to say of it.
    address : str or None
        Where a restore process may be running; None: none is asked.
    keys : ClientKeys or None

    Returns
    -------
    promotion : Promotion
        With `what` ``promoted`` or ``refused``.
    swapped : str
        What became of the running restore process, in words; empty where nothing was promoted.

    Raises
    ------
    WireError
        If a restore process answers, and does not take the model.
    """
    package = open_package(choice.package)
    said: dict[str, Any] = {
        "model": package.name,
        "sha256": package.onnx_sha256,
        **_now(),
        "calibrations": tuple(asdict(one) for one in verdict.standings),
    }
    if not verdict.better and not force:
        reasons = "; ".join(verdict.against)
        refused = Promotion("refused", str(choice.package.absolute()), why=reasons, **said)
        promotions.add(refused)
        return refused, ""
    copy = promotions.take(package.path)
    swapped = swap(replace(choice, package=copy), address, keys)
    because = "; ".join(filter(None, [why, *(verdict.against if not verdict.better else ())]))
    done = Promotion("promoted", copy.name, forced=not verdict.better, why=because or verdict.praise, **said)
    promotions.add(done)
    return done, swapped


def rollback(
    promotions: Promotions,
    choice_for: Callable[[Path], ModelChoice],
    fallback: Path | None,
    *,
    why: str = "",
    address: str | None = None,
    keys: ClientKeys | None = None,
) -> tuple[Promotion, str]:
    """Take the last promotion back: what served before it serves again, also in a restore process that is running.

    Parameters
    ----------
    promotions : Promotions
        Of the channel.
    choice_for : callable
        Says how a package is served for this channel.
    fallback : Path or None
        The package that the configuration names, which serves where nothing was promoted; None: it names none.
    why : str
    address, keys
        As for `promote`.

    Returns
    -------
    promotion : Promotion
        With `what` ``rolled back``, and what serves now.
    swapped : str

    Raises
    ------
    ConfigError
        If nothing was promoted, or what served before is gone.
    WireError
        If a restore process answers, and does not take the model.
    """
    standing = promotions.standing()
    if not standing:
        raise ConfigError(f"nothing was promoted for {promotions.channel}; there is nothing to take back")
    before = standing[-2] if len(standing) > 1 else None
    path = fallback if before is None else promotions.folder / before.package
    if before is not None and path is not None and not path.exists():
        raise ConfigError(
            f"what served {promotions.channel} before, {path}, is gone, so {standing[-1].model} goes on; restore it from a "
            "backup, or promote another model: live-restore promote"
        )
    if path is None:
        model, sha256 = "", ""
        swapped = (
            "the configuration names no model for it: a restore process that runs keeps the one it has until it is restarted"
        )
    else:
        package = open_package(path)
        model, sha256 = package.name, package.onnx_sha256
        swapped = swap(choice_for(path), address, keys)
    name = "" if before is None else before.package
    done = Promotion("rolled back", name, model, sha256, **_now(), why=why)
    promotions.add(done)
    return done, swapped


def swap(choice: ModelChoice, address: str | None, keys: ClientKeys | None = None) -> str:
    """Put a model to work in the restore process at an address, if one answers there.

    Returns
    -------
    str
        What became of it.

    Raises
    ------
    WireError
        If a restore process answers and does not take the model, or the address cannot be one.
    """
    later = "the next live-restore serve --config takes it"
    if address is None:
        return later
    with Caller(address, keys) as caller:
        try:
            caller.ask(Command("status"), _ANYBODY_S)
        except WireError:
            return f"no restore process answers at {address}; {later}"
        words = {"channel": choice.channel, "package": str(choice.package.resolve()), "mode": choice.mode}
        options = words | {"engine": choice.engine, "precision": choice.precision, "tolerate": choice.tolerate}
        answer = caller.ask(Command("swap", {name: word for name, word in options.items() if word is not None}), _SWAP_S)
    refused = answer.refused if isinstance(answer, Answer) else "it answered something else"
    if refused:
        raise WireError(f"the restore process at {address} does not take the model, and goes on with the one it has: {refused}")
    return f"the restore process at {address} works with it now"


def _now() -> dict[str, Any]:
    """Say when and by whom."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name in the environment, and none in the system's list
        user = "somebody"
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "by": f"{user}@{platform.node()}"}

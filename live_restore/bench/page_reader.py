"""A page without a screen: asks the preview's server for views as the page does, and notes when each came.

Receives its options as JSON on the command line; hands on one line of JSON. What a browser would draw is taken apart like
there, and thrown away. It does not know the restore process.
"""

import asyncio
import json
import sys
import time
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

_LARGEST = 1 << 28


def read_views(options: dict[str, Any]) -> dict[str, Any]:
    """Ask for one view after another.

    Parameters
    ----------
    options : dict
        ``page``: address of the preview; ``seconds``: how long, from the first view on.

    Returns
    -------
    dict
        ``views``: (time point, moment in ns, whether it was restored), one per view.
    """
    return asyncio.run(_read(options["page"], float(options["seconds"])))


async def _read(page: str, seconds: float) -> dict[str, Any]:
    views: list[tuple[int, int, bool]] = []
    until_s = float("inf")
    wish = {"serial": 0, "position": "", "channel": "", "z": -1, "trust": False, "region": [], "block": 1}
    words = json.dumps(wish)
    where = page.replace("http://", "ws://").rstrip("/") + "/watch"
    async with connect(where, origin=page.rstrip("/"), max_size=_LARGEST, compression=None) as line:  # type: ignore[arg-type]
        await line.send(words)
        print("began", flush=True)
        try:
            while time.monotonic() < until_s:
                message = await asyncio.wait_for(line.recv(), 20.0)
                if isinstance(message, str):
                    continue
                await line.send(words)
                header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
                if header["layers"]:
                    until_s = min(until_s, time.monotonic() + seconds)
                    views.append((header["time"], time.perf_counter_ns(), "restored" in header["layers"]))
        except (TimeoutError, ConnectionClosed) as ended:
            print(f"ended early: {ended!r}", flush=True)
    return {"views": views}


if __name__ == "__main__":
    print("result " + json.dumps(read_views(json.loads(sys.argv[1]))), flush=True)

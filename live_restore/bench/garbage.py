"""A server gone mad: it welcomes every client, and then sends it nothing but garbage.

Receives its address as JSON on the command line; hands on rubbish until it is ended. For one measurement only: that raw
data is safe from whatever answers at the other end. It does not know the protocol beyond its first word.
"""

import json
import sys

import numpy as np
import zmq

from live_restore.wire.messages import Welcome, encode


def serve_garbage(address: str) -> None:
    """Answer every message with a welcome once, then with random bytes, half a header, and a promise of exabytes."""
    rng = np.random.default_rng(1)
    welcomed: set[bytes] = set()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(address)
        print("began", flush=True)
        while True:
            client = router.recv_multipart()[0]
            if client not in welcomed:
                welcomed.add(client)
                router.send_multipart([client, *encode(Welcome("mad", "nobody", 3))])
            huge = {"v": 1, "kind": "restored", "run": "x" * 100, "shape": [65535, 65535, 65535], "dtype": "<f4"}
            for rubbish in ([rng.bytes(200)], [b"{"], [json.dumps(huge).encode(), rng.bytes(64)]):
                router.send_multipart([client, *rubbish])


if __name__ == "__main__":
    serve_garbage(json.loads(sys.argv[1])["address"])

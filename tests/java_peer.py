"""A stand-in for pycro-manager's Java side: it speaks the protocol of its image sockets to pycro-manager's own loop.

It sends images as the Java engine does, and hands on what comes back. The JVM itself is not run by it.
"""

import json
import queue
import socket
import sys
import threading
import time

import numpy as np
import zmq

_DEADLINE_S = 20


def exchange(processor, images, metadata):
    """Send images through ``_run_image_processor`` with a processor; gives what came back, and what went wrong.

    Returns
    -------
    list of (metadata, bytes), list of BaseException
    """
    from pycromanager.acquisition.acquisition_superclass import Acquisition
    from pycromanager.acquisition.java_backend_acquisitions import _run_image_processor

    class Acquirer:
        _event_queue = queue.Queue()
        _exception = None
        _call_image_process_fn = Acquisition._call_image_process_fn

        def abort(self, error=None):
            errors.append(error)

    errors, back = [], []
    context = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    to_python = push.bind_to_random_port("tcp://127.0.0.1")
    with socket.socket() as free:  # closed at once, where ZeroMQ would unbind some time later
        free.bind(("127.0.0.1", 0))
        from_python = free.getsockname()[1]
    connected = threading.Event()

    def loop():
        try:
            _run_image_processor(Acquirer(), from_python, to_python, connected, processor, queue.Queue(), False)
        except BaseException as error:  # told to the test
            errors.append(error)

    try:
        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        assert connected.wait(_DEADLINE_S)
        pull.connect(f"tcp://127.0.0.1:{from_python}")
        for number, (image, said) in enumerate(zip(images, metadata, strict=True)):
            push.send_multipart(_message(number, image, said))
        push.send_multipart([json.dumps({"special": "finished"}).encode()])
        deadline = time.monotonic() + _DEADLINE_S
        while pull.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            parts = pull.recv_multipart()
            said = json.loads(parts[0].decode("iso-8859-1"))
            if said.get("special") == "finished":
                break
            back.append((said["metadata"], parts[2]))
        thread.join(_DEADLINE_S)
    finally:  # a context with open sockets would block whoever collects it, for ever
        context.destroy(linger=0)
    return back, errors


def _message(number, image, said):
    """An image as Java sends it: pixels go as a part of their own, whose number stands for them behind an @."""
    name = 0x1234 + number
    kind = "short-array" if image.dtype == np.uint16 else "byte-array"
    header = {"metadata": said, "pixels": {"type": kind, "value": f"@{name:x}"}}
    return [json.dumps(header).encode("iso-8859-1"), name.to_bytes(4, sys.byteorder), image.tobytes()]

"""The preview as napari layers: raw, restored and where raw disagrees, updated in place with the newest volume.

Receives `Seen` views from a `Watch`; hands on layers of a napari viewer. Needs the extra ``napari``; nothing else imports
it. It does not know sockets. One plane, or the maximum projection, is shown at a time, as in the web page.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import LiveRestoreError
from live_restore.preview.conversation import Link, Seen, Wish
from live_restore.preview.source import Watch
from live_restore.wire.messages import View
from live_restore.wire.security import ClientKeys

_THRESHOLD = 4.2
_PERCENTILES = (1, 99.8)
_INVENTED, _ERASED = 1, 2
_COLOURS = {None: "transparent", 0: "transparent", _INVENTED: "#e69f00", _ERASED: "#56b4e9"}
_TICK_MS = 30


def run(address: str, keys: ClientKeys | None = None) -> None:
    """Open napari on the restore process at `address`, until its window is closed.

    Parameters
    ----------
    address : str
    keys : ClientKeys or None

    Raises
    ------
    LiveRestoreError
        If napari or its Qt backend is not installed.
    """
    try:
        import napari

        timer = import_module("qtpy.QtCore").QTimer()
    except ImportError as missing:
        raise LiveRestoreError(
            f"the napari preview needs napari and Qt ({missing}); install both: "
            "pip install 'live_restore[napari]' 'napari[all]'"
        ) from missing
    viewer = napari.Viewer(title="live_restore")
    layers = LiveLayers(viewer)
    arrived: deque[Seen | Link] = deque(maxlen=64)  # a view comes only after the one before it was shown
    with Watch(address, keys, arrived.append) as watch:
        watch.want(layers.wish)
        _add_choices(viewer, layers, watch)
        timer.timeout.connect(lambda: show_arrived(arrived, layers, watch))
        timer.start(_TICK_MS)
        napari.run()
        timer.stop()


def show_arrived(arrived: "deque[Seen | Link]", layers: "LiveLayers", watch: Watch) -> None:
    """Show what has arrived, in napari's own thread, and ask for the next."""
    while arrived:
        what = arrived.popleft()
        if isinstance(what, Link):
            layers.tell(what)
        else:
            layers.show(what)
            watch.want(layers.wish)


def _add_choices(viewer: Any, layers: "LiveLayers", watch: Watch) -> None:
    """Dock the choice of channel, position and plane beside the images."""

    def choose(channel: str = "", position: str = "", z: int = -1) -> None:
        layers.choose(channel, position, z)
        watch.want(layers.wish)

    range_of_z = {"min": -1, "max": 4095, "tooltip": "-1: maximum projection"}
    choices = import_module("magicgui").magicgui(choose, auto_call=True, z=range_of_z)
    viewer.window.add_dock_widget(choices, name="Show (empty: newest; z -1: maximum)", area="right")


class LiveLayers:
    """Three layers of a viewer that follow the restore process.

    Parameters
    ----------
    viewer : napari.Viewer or napari.components.ViewerModel

    Attributes
    ----------
    wish : Wish
        What is wanted next.
    """

    def __init__(self, viewer: Any) -> None:
        self.wish = Wish(trust=True)
        self._viewer = viewer
        self._layers: dict[str, Any] = {}
        self._said = ""
        self._limits: dict[str, tuple[float, float]] = {}
        self._text = _text_of(viewer)
        self._text.visible = True
        self.tell(Link())

    def choose(self, channel: str, position: str, z: int) -> None:
        """Want another channel, position (empty: newest) or plane (-1: maximum projection)."""
        self.wish = replace(self.wish, serial=self.wish.serial + 1, channel=channel, position=position, z=max(-1, z))

    def tell(self, link: Link) -> None:
        """Say how it stands with the restore process."""
        words = {
            "seeking": "waiting for the restore process",
            "live": "",
            "gone": "THE RESTORE PROCESS IS GONE: what is shown is from before",
            "failed": f"the restore process cannot be asked: {link.why}",
        }
        self._said = words[link.state]
        self._text.text = self._said or self._text.text

    def show(self, seen: Seen) -> None:
        """Put a view into the layers; what did not come is emptied, so that nothing old stands beside new raw."""
        view = seen.view
        if view.raw is None or seen.wish.serial != self.wish.serial:
            return
        pixel_um = _pixel_size(view)
        restored = np.zeros_like(view.raw, np.float32) if view.restored is None else view.restored
        self._put("raw", view.raw, pixel_um)
        self._put("restored", restored, pixel_um * view.raw.shape[0] / restored.shape[0])
        self._put_trust(disagreement(view), pixel_um)
        self._share_contrast(view)
        self._text.text = self._said or caption(view)

    def _put(self, name: str, pixels: NDArray[Any], pixel_um: float) -> None:
        layer = self._layers.get(name)
        if layer is None or layer not in self._viewer.layers:
            layer = self._viewer.add_image(pixels, name=name, scale=(pixel_um, pixel_um))
            self._layers[name] = layer
            return
        layer.data = pixels
        layer.scale = (pixel_um, pixel_um)

    def _put_trust(self, labels: NDArray[np.uint8], pixel_um: float) -> None:
        layer = self._layers.get("trust")
        if layer is None or layer not in self._viewer.layers:
            from napari.utils.colormaps import DirectLabelColormap

            layer = self._viewer.add_labels(labels, name="trust: orange invented, blue erased", scale=(pixel_um, pixel_um))
            layer.colormap = DirectLabelColormap(color_dict=_COLOURS)
            self._layers["trust"] = layer
            return
        layer.data = labels
        layer.scale = (pixel_um, pixel_um)

    def _share_contrast(self, view: View) -> None:
        """Raw and restored share black and white; each channel begins with its first view's percentiles."""
        channel = view.key.channel if view.key else ""
        if channel not in self._limits:
            self._limits[channel] = limits = _percentiles(view)
            for name in ("raw", "restored"):
                self._layers[name].contrast_limits = limits


def _text_of(viewer: Any) -> Any:
    """Find the text over the images; it moved in napari 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.text_overlay if canvas is None else canvas.overlays.text


def disagreement(view: View) -> NDArray[np.uint8]:
    """Labels (Y, X): 1 where restored has structure that raw lacks, 2 where raw has what restored lacks, else 0."""
    if view.raw is None or view.trust is None:
        return np.zeros((1, 1) if view.raw is None else view.raw.shape, np.uint8)
    trust = view.said.get("trust", {})
    limit = 10 * float(trust.get("threshold", _THRESHOLD) if isinstance(trust, Mapping) else _THRESHOLD)
    return (_INVENTED * (view.trust <= -limit) + _ERASED * (view.trust >= limit)).astype(np.uint8)


def caption(view: View) -> str:
    """Say in a few words what is shown and how far to trust it."""
    trust = view.said.get("trust", {})
    plane = f"maximum of {view.planes} planes" if view.z < 0 else f"plane {view.z + 1} of {view.planes}"
    parts = [str(view.key), plane]
    if view.slab:
        parts.append(f"provisional: {view.slab} of {view.planes} planes")
    if view.restored is None:
        parts.append("not restored")
    if isinstance(trust, Mapping) and trust.get("trusted") is False:
        parts.append(f"DO NOT TRUST the restored image: {trust.get('why', '')}")
    elif isinstance(trust, Mapping) and trust.get("doubts"):
        parts.append(f"look twice at the restored image: {trust['doubts'][0]}")
    return "; ".join(parts) + "\nraw is the record, restored is a prediction"


def _percentiles(view: View) -> tuple[float, float]:
    images = [image for image in (view.raw, view.restored) if image is not None]
    ranges = [np.percentile(image[::3, ::3], _PERCENTILES) for image in images]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return float(low), float(max(high, low + 1))


def _pixel_size(view: View) -> float:
    runs = view.status.get("runs", [])
    plan: Mapping[str, Any] = next((run.get("plan", {}) for run in runs if run.get("run") == view.run), {})
    size = plan.get("pixel_size_um")
    return float(size) if isinstance(size, int | float) and size > 0 else 1.0

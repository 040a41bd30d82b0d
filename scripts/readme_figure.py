"""Draw the README's before/after figure: the last volumes of a demo, raw, restored and true.

    python scripts/readme_figure.py

Runs `live-restore demo` for half a minute, without a browser, and keeps its figure small in docs/images/before_after.png.
"""

import tempfile
from pathlib import Path

from PIL import Image

from live_restore.demo import run_demo

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "before_after.png"
WIDTH = 1100


class Told:
    """Says what happens, and draws no bar."""

    def say(self, sentence: str) -> None:
        """Print it."""
        print(sentence)

    def frames(self, done: int, total: int) -> None:
        """Keep quiet."""


def main() -> None:
    """Run the demo, and keep its figure."""
    with tempfile.TemporaryDirectory() as folder:
        shown = run_demo(Path(folder), seconds=28, listener=Told(), browser=False)
        if shown.figure is None:
            raise SystemExit("nothing was restored; see what the demo says")
        shrink(shown.figure)


def shrink(figure: Path) -> None:
    """Write it at the README's width, with few colours."""
    with Image.open(figure) as drawn:
        height = round(drawn.height * WIDTH / drawn.width)
        small = drawn.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(256, Image.Quantize.FASTOCTREE).save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()

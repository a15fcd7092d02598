"""Pictures are composed in every test but drawn in those that look at them.

Drawing one, as PNG and as PDF, takes longer than a small training or analysis. A test that needs the picture
asks for the fixture `drawn`; a fixture for several tests works within `pictures.drawn()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure

from mlplugins import plotting

_draw = plotting.rendered
_drawn: tuple[str, ...] = ()


@contextmanager
def drawn(*kinds: str) -> Iterator[None]:
    """Pictures of these kinds are drawn inside (default: all)."""
    global _drawn
    before, _drawn = _drawn, kinds or plotting.KINDS
    try:
        yield
    finally:
        _drawn = before


def _rendered(figure: Figure, kind: str = "png") -> bytes:
    return _draw(figure, kind) if kind in _drawn else b"not drawn in this test"


def switch_off() -> None:
    """From now on pictures are drawn within `drawn` only."""
    plotting.rendered = _rendered

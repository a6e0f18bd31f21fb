"""Badges from records: the JSON that shields' endpoint reads, and the same as a small SVG. Grey when older than 30 days."""

import html
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from scarce_common_utils.checkpoints import write_atomically

Colour = Literal["brightgreen", "yellow", "red", "lightgrey"]
STALE_AFTER = timedelta(days=30)
_HEX = {"brightgreen": "#2e8b57", "yellow": "#c08a00", "red": "#c0392b", "lightgrey": "#8a8a8a"}
_WIDTH_OF_A_LETTER = 6.6  # pixels, of Verdana at 11 px on average
_PADDING = 10.0


def badge_colour(colour: Colour, measured: datetime, now: datetime | None = None) -> Colour:
    """`colour`, or lightgrey where the measurement is older than 30 days; both times carry a time zone."""
    age = (datetime.now(UTC) if now is None else now) - measured
    return "lightgrey" if age > STALE_AFTER else colour


def write_badge(folder: Path, name: str, *, label: str, message: str, colour: Colour) -> tuple[Path, Path]:
    """Write `<name>.json` for shields' endpoint and `<name>.svg` beside it; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = {"schemaVersion": 1, "label": label, "message": message, "color": colour}
    files = folder / f"{name}.json", folder / f"{name}.svg"
    write_atomically(files[0], (json.dumps(endpoint, indent=1) + "\n").encode())
    write_atomically(files[1], _svg(label, message, _HEX[colour]).encode())
    return files


def _svg(label: str, message: str, colour: str) -> str:
    left, right = (len(text) * _WIDTH_OF_A_LETTER + _PADDING for text in (label, message))
    title = html.escape(f"{label}: {message}", quote=True)
    texts = "".join(
        f'<text x="{x:.1f}" y="14">{html.escape(text)}</text>'
        for x, text in ((left / 2, label), (left + right / 2, message))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.1f}" height="20" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
        f'<rect width="{left:.1f}" height="20" fill="#444"/><rect x="{left:.1f}" width="{right:.1f}" height="20" fill="{colour}"/>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{texts}</g></svg>\n'
    )

"""Small inline drawings: sizes in CSS pixels, colours from the page's variables, so light and dark both work."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 220
HEIGHT: Final = 44


def histogram(
    reference: Sequence[int], seen: Sequence[int] | None = None, *, ordered: bool = True, title: str = ""
) -> str:
    """Bars of the reference's shares, one for each bin; `seen`, on the same bins, as dots, joined where `ordered`."""
    shares = _shares(reference)
    dots = _shares(seen) if seen is not None and any(seen) else []
    top = max([*shares, *dots, 1e-9])
    step = WIDTH / len(shares)
    parts = [
        f'<rect class="bar" x="{i * step + 0.5:.1f}" y="{HEIGHT * (1 - share / top):.1f}" '
        f'width="{max(1.0, step - 1):.1f}" height="{HEIGHT * share / top:.1f}"/>'
        for i, share in enumerate(shares)
    ]
    points = [(i * step + step / 2, 3 + (HEIGHT - 6) * (1 - share / top)) for i, share in enumerate(dots)]
    if points and ordered:
        parts.append(f'<polyline class="seen" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    parts += [f'<circle class="seen" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in points]
    return _svg(parts, title)


def gauge(value: float, low: float, high: float, limit: float, *, title: str = "") -> str:
    """A prediction with its interval beside a limit, on a common scale from zero."""
    scale = WIDTH / (max(high, limit, value) * 1.05)
    end, verdict = limit * scale, "good" if value <= limit else "bad"
    return _svg(
        [
            f'<rect class="track" x="0" y="8" width="{end:.1f}" height="8" rx="4"/>',
            f'<line class="range" x1="{low * scale:.1f}" x2="{high * scale:.1f}" y1="12" y2="12"/>',
            f'<circle class="{verdict}" cx="{value * scale:.1f}" cy="12" r="5"/>',
            f'<line class="limit" x1="{end:.1f}" x2="{end:.1f}" y1="3" y2="21"/>',
        ],
        title,
        height=24,
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def _svg(parts: Sequence[str], title: str, height: int = HEIGHT) -> str:
    label = f"<title>{escape(title)}</title>" if title else ""
    box = f'width="{WIDTH}" height="{height}" viewBox="-2 -2 {WIDTH + 4} {height + 4}"'
    return f'<svg role="img" {box}>{label}{"".join(parts)}</svg>'

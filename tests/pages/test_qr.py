"""QR codes: what they hold, how they look, and that drawing them stops nothing else."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
import segno
from markupsafe import Markup

from cashier.pages import qr
from cashier.pages.qr import MAX_BYTES, QrCodes, draw

URL = "https://qr.wallet.example/pay_h5k2xq7m3n4b6c2d5f7g3j4k6l"


def dark_modules(svg: str) -> set[tuple[int, int]]:
    path = re.findall(r'd="([^"]+)"', svg)[1]
    return {
        (int(x) + step, int(y))
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path)
        for step in range(int(width))
    }


@pytest.mark.parametrize("content", [URL, "1", "付款码 ١٢٣", "x" * MAX_BYTES])
def test_the_drawing_is_the_code_with_four_modules_around_it(content: str) -> None:
    svg = draw(content)
    rows = segno.make_qr(content, error="m", boost_error=False, mask=3).matrix
    assert dark_modules(svg) == {(x + 4, y + 4) for y, row in enumerate(rows) for x, dark in enumerate(row) if dark}
    assert f'viewBox="0 0 {len(rows) + 8} {len(rows) + 8}"' in svg


def test_it_is_dark_on_light_in_every_theme_and_has_nothing_to_run() -> None:
    svg = draw('"><script>alert(1)</script>')
    assert re.findall(r'fill="(#\w+)"', svg) == ["#fff", "#000"]
    assert "script" not in svg
    assert "style" not in svg
    assert "class" not in svg


async def test_each_code_is_drawn_once_and_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def counted(content: str) -> Markup:
        threads.append(threading.get_ident())
        return draw(content)

    monkeypatch.setattr(qr, "draw", counted)
    codes = QrCodes()
    first, second = await asyncio.gather(codes.svg(URL), codes.svg(URL))
    assert first == second == await codes.svg(URL) == draw(URL)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_a_caller_that_leaves_takes_the_code_from_nobody() -> None:
    codes = QrCodes()
    leaving = asyncio.create_task(codes.svg(URL))
    await asyncio.sleep(0)
    other = asyncio.create_task(codes.svg(URL))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await other == draw(URL)


async def test_the_memory_is_bounded_and_too_much_is_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qr, "_MOST_KEPT", 2)
    codes = QrCodes()
    for number in range(5):
        await codes.svg(f"{URL}{number}")
    assert repr(codes) == "<QrCodes kept=2 drawing=0>"
    assert await codes.svg("x" * (MAX_BYTES + 1)) is None
    assert await codes.svg("") is None

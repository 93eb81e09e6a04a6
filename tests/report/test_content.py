"""How large a picture is on the page."""

from __future__ import annotations

import io

from PIL import Image

from medmamba_monai.report.content import Figure
from medmamba_monai.report.embed import Picture


def test_a_figure_is_shown_in_inches_of_100_pixels() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1008, 500)).save(stream, "PNG")
    figure = Figure(Picture(stream.getvalue()), "title", "alt", "caption")
    assert (figure.width, figure.height, figure.shown) == (1008, 500, 720)
    assert figure.address.startswith("data:image/png")

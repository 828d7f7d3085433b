"""Figures in a page that stands alone: plotly.js lies packed in its head, 2.0 MB instead of 4.8.

plotly has no smaller build in its Python package, one file beside the pages would not travel with them, and a network
is not to be had everywhere. So the browser unpacks it itself (`DecompressionStream`: Chrome 80, Safari 16.4 and Firefox
113, of 2023); where it cannot, the page says so, and has its numbers in tables all the same.
"""

import base64
import gzip
from functools import cache
from html import escape
from typing import Any, Final

import plotly.io
from plotly.offline import get_plotlyjs

CONFIG: Final = '{"displaylogo": false, "responsive": true}'
HEIGHT: Final = 450
"""Pixels of a figure that says none: plotly's own."""
UNPACK: Final = """
const plotly = (async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(plain).text();
  document.head.append(script);
})();
plotly.catch(() => {});  // told where a figure would stand
function draw(id, figure) {
  plotly.then(() => Plotly.newPlot(id, figure.data, figure.layout, %s)).catch(error => {
    document.getElementById(id).textContent = "This browser cannot draw the figure (" + error + ").";
  });
}
"""


@cache
def head() -> str:
    """What a page's head needs once, before any figure."""
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    return f'<script type="application/gzip" id="plotly">{packed}</script><script>{UNPACK % CONFIG}</script>'


def figure_part(figure: Any, id: str) -> str:
    """A figure of plotly, at its place in the body; `id`: its own in the page."""
    # No text inside can end the script: `<` only stands in strings of JSON.
    data = plotly.io.to_json(figure).replace("<", "\\u003c")
    name, height = escape(id, quote=True), figure.layout.height or HEIGHT
    place = f'<div id="{name}" class="figure" style="min-height: {height:g}px"></div>'
    return f'{place}<script>draw("{name}", {data})</script>'

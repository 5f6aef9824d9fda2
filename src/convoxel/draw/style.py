"""The style sheets of charts and reports: light and dark (the colours of ``theme``), screen and paper."""

from __future__ import annotations

from collections.abc import Mapping

from convoxel.draw.palette import CLASS_COLOURS, ERROR_COLOURS, RGB, hexadecimal
from convoxel.draw.theme import DARK, LIGHT, colour

__all__ = ["CHART_STYLE", "PAGE_STYLE", "light_colour"]


def _variables(table: Mapping[str, str]) -> str:
    return " ".join(f"--{name}:{value};" for name, value in table.items())


_ROOTS = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
"""

_SERIES = "\n".join(
    f".line.class{i} {{ stroke:var(--c{i}); stroke-dasharray:5 2.5 }} .mark.class{i} {{ fill:var(--c{i}) }}"
    for i in range(1, 8)
)

_CHART = f"""
.chart text, .alone text {{ font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  fill: var(--soft); font-variant-numeric: tabular-nums }}
.chart .title {{ font-size: 14px; font-weight: 600; fill: var(--ink) }}
.chart .end {{ text-anchor: end }} .chart .middle {{ text-anchor: middle }}
.chart .grid {{ stroke: var(--grid) }} .chart .axis {{ stroke: var(--faint) }}
.chart .best {{ font-weight: 600; fill: var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round }}
.line {{ fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round }}
.line.train {{ stroke: var(--c5); stroke-dasharray: 5 2.5 }} .mark.train {{ fill: var(--c5) }}
.line.validation {{ stroke: var(--c7); stroke-width: 2.2 }} .mark.validation {{ fill: var(--c7) }}
.line.mean {{ stroke: var(--ink); stroke-width: 2.2 }} .mark.mean {{ fill: var(--ink) }}
.line.rate {{ stroke: var(--c3); stroke-width: 2 }} .mark.rate {{ fill: var(--c3) }}
.line.speed {{ stroke: var(--c6); stroke-width: 2 }} .mark.speed {{ fill: var(--c6) }}
.line.faint {{ stroke: var(--faint); stroke-width: 1; opacity: .55 }}
.ring {{ fill: none; stroke: var(--ink); stroke-width: 1.5 }}
{_SERIES}
"""

CHART_STYLE = _ROOTS + _CHART + ".alone { background: var(--card) }"


def light_colour(name: str) -> RGB:
    """Return the colour that a variable of the style sheet has on a light page, for pictures made of pixels.

    >>> light_colour("card"), light_colour("c7")
    ((255, 255, 255), (0, 99, 155))
    """
    return colour(name)


_ERRORS = "\n".join(f".swatch.{name} {{ background:{hexadecimal(colour)} }}" for name, colour in ERROR_COLOURS.items())
_CLASSES = "\n".join(
    f".swatch.class{i} {{ background:{hexadecimal(colour)} }} .bar.class{i} {{ fill:var(--c{i}) }}"
    for i, colour in enumerate(CLASS_COLOURS, 1)
)

PAGE_STYLE = f"""{_ROOTS}{_CHART}
* {{ box-sizing: border-box }}
html {{ -webkit-text-size-adjust: 100%; scroll-behavior: smooth }}
@media (prefers-reduced-motion: reduce) {{ html {{ scroll-behavior: auto }} }}
body {{ margin: 0; background: var(--page); color: var(--ink); line-height: 1.55; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", sans-serif }}
main, header, footer {{ max-width: 1120px; margin: 0 auto; padding: 0 24px }}
header {{ padding-top: 44px }}
.eyebrow {{ margin: 0 0 4px; color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: .04em }}
h1 {{ margin: 0; font-size: clamp(28px, 5vw, 40px); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere }}
.lead {{ margin: 8px 0 0; color: var(--soft); font-size: 17px; max-width: 72ch }}
nav {{ display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 20px 0 0; padding: 10px 0; font-size: 14px;
  border-block: 1px solid var(--rule) }}
a {{ color: var(--accent); text-underline-offset: 3px }} nav a {{ text-decoration: none }}
  a:hover {{ text-decoration: underline }}
a:focus-visible, [tabindex]:focus-visible, summary:focus-visible, input:focus-visible + label
  {{ outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px }}
section {{ margin: 52px 0 0; scroll-margin-top: 16px }}
h2 {{ margin: 0 0 6px; font-size: 23px; letter-spacing: -.01em; line-height: 1.25 }}
h3 {{ margin: 28px 0 8px; font-size: 16px }}
section > p, .text, .lead {{ text-wrap: pretty }}
section > p, .text {{ margin: 0 0 16px; color: var(--soft); max-width: 76ch }}
.note {{ margin: 24px 0 0; padding: 12px 16px; background: var(--note); border-left: 4px solid var(--note-rule);
  border-radius: 4px; max-width: none; color: var(--ink) }}
.note p {{ margin: 0 }} .note p + p {{ margin-top: 6px }}
.headline {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: 12px; margin: 24px 0 0 }}
.headline > div, .card {{ background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 16px 18px }}
.headline dt {{ color: var(--soft); font-size: 13.5px; line-height: 1.35 }}
.headline dd {{ margin: 0; font-size: 27px; font-weight: 600; letter-spacing: -.02em; line-height: 1.25;
  font-variant-numeric: tabular-nums; white-space: nowrap }}
.headline div {{ display: flex; flex-direction: column-reverse; justify-content: flex-end }}
.headline dd.words {{ font-size: 20px; line-height: 34px }}
.headline .first dd {{ color: var(--accent) }}
.headline small {{ display: block; color: var(--faint); font-size: 12.5px }}
.charts {{ display: none; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 14px }}
.charts svg {{ display: block; width: 100%; height: auto }}
.switch {{ position: absolute; opacity: 0; pointer-events: none }}
.switch + label {{ display: inline-block; margin: 0 6px 14px 0; padding: 3px 14px; font-size: 14px; cursor: pointer;
  border: 1px solid var(--rule); border-radius: 99px; color: var(--soft); background: var(--card) }}
.switch:checked + label {{ border-color: var(--accent); color: var(--accent); font-weight: 600 }}
#over-time:checked ~ .over-time, #over-step:checked ~ .over-step {{ display: grid }}
.legend {{ display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 16px; padding: 0; list-style: none;
  font-size: 14px }}
.swatch {{ display: inline-block; width: 13px; height: 13px; margin-right: 7px; border-radius: 3px;
  vertical-align: -1.5px;
  box-shadow: 0 0 0 1px rgba(110,118,129,.65) }}
{_CLASSES}
{_ERRORS}
.examples {{ display: grid; gap: 14px }}
.examples.narrow {{ grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)) }}
figure {{ margin: 0 }}
.example .panels {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px }}
@media (max-width: 620px) {{ .example .panels {{ grid-template-columns: repeat(2, 1fr) }} }}
.panel img {{ display: block; width: 100%; height: auto; border-radius: 4px; background: #000 }}
.panel span {{ display: block; margin-top: 4px; font-size: 12.5px; color: var(--faint); text-align: center;
  line-height: 1.3 }}
.framed {{ position: relative }}
.framed i {{ position: absolute; color: #fff; font: 600 12px/1 system-ui, sans-serif;
  text-shadow: 0 0 3px #000, 0 0 3px #000 }}
.framed .t {{ top: 5px; left: 50%; transform: translateX(-50%) }}
.framed .b {{ bottom: 5px; left: 50%; transform: translateX(-50%) }}
.framed .l {{ left: 6px; top: 50%; transform: translateY(-50%) }}
.framed .r {{ right: 6px; top: 50%; transform: translateY(-50%) }}
figcaption {{ margin-top: 8px; font-size: 14px; color: var(--soft); overflow-wrap: anywhere }}
figcaption b {{ color: var(--ink) }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 14px }}
.tiles figure {{ padding: 10px }} .tiles img {{ display: block; width: 100%; height: auto; border-radius: 4px;
  background: #000 }}
.tiles figcaption {{ line-height: 1.4 }}
.right {{ color: var(--good); font-weight: 600 }} .wrong {{ color: var(--bad); font-weight: 600 }}
.scroll {{ overflow: auto; border: 1px solid var(--rule); border-radius: 10px; background: var(--card) }}
.scroll.tall {{ max-height: 560px }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }}
th, td {{ padding: 7px 14px; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap }}
tbody tr:last-child > * {{ border-bottom: 0 }}
thead th {{ color: var(--soft); font-size: 13px; background: var(--card); position: sticky; top: 0;
  box-shadow: 0 1px var(--rule) }}
tbody th {{ font-weight: 500 }} .number {{ text-align: right }} td.wide {{ white-space: normal }}
.strip {{ display: block; width: 240px; height: 22px }} .track {{ fill: var(--grid) }} .bar {{ fill: var(--accent);
  opacity: .6 }}
.dot {{ fill: var(--ink); opacity: .5 }}
.fit {{ display: inline-block; max-width: 100% }} .fit table {{ width: auto }}
  .fit th, .fit td {{ padding-inline: 18px }}
.matrix {{ display: inline-block; max-width: 100% }} .matrix table {{ width: auto }}
.matrix th, .matrix td {{ padding: 5px 9px; text-align: center; min-width: 44px; border: 1px solid var(--card) }}
.matrix tbody th {{ text-align: right; position: sticky; left: 0; background: var(--card) }}
.matrix .none {{ color: var(--faint) }}
details {{ margin-top: 14px }} summary {{ cursor: pointer; color: var(--accent); font-size: 14.5px }}
details[open] > summary {{ margin-bottom: 10px }}
.entries {{ columns: 3 290px; column-gap: 36px; margin: 0; font-size: 14px }}
.entries div {{ display: flex; justify-content: space-between; gap: 16px; padding: 4px 0;
  border-bottom: 1px solid var(--rule);
  break-inside: avoid }}
.entries dt {{ color: var(--soft); white-space: nowrap }}
.entries dd {{ margin: 0; text-align: right; overflow-wrap: anywhere; min-width: 0;
  font-variant-numeric: tabular-nums }}
pre, code {{ font: 13.5px/1.6 ui-monospace, SFMono-Regular, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }}
pre {{ margin: 0 0 16px; padding: 12px 16px; overflow-x: auto; background: var(--code); border-radius: 8px }}
.unseen {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }}
footer {{ margin-top: 56px; padding-top: 16px; padding-bottom: 40px; color: var(--faint); font-size: 13.5px;
  overflow-wrap: anywhere }}
@media print {{ body {{ font-size: 11pt }} nav, .switch + label {{ display: none }}
  .scroll {{ max-height: none !important }}
  section {{ margin-top: 24pt }} figure, .card {{ break-inside: avoid }} }}
"""

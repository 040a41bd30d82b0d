"""The page of a report: its typography, and the pieces it is put together from.

Receives words, rows and pictures; hands on HTML in which everything is contained: no script, nothing loaded from elsewhere. It
does not know what the words say.
"""

from collections.abc import Mapping, Sequence
from html import escape

# Whatever the page may hold, nothing is loaded and nothing runs.
_NOTHING_FROM_OUTSIDE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { --ink: #1b2733; --muted: #66727f; --rule: #d9dee4; --teal: #0a7d91; --wash: #f4f6f8; --warn: #8a5a00;
  --warn-wash: #fdf6e7; --worse: #b3261e; }
* { box-sizing: border-box; }
html { font: 15px/1.5 "Source Sans 3", "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: var(--ink);
  background: white; }
body { max-width: 54rem; margin: 2.2rem auto 3rem; padding: 0 1.6rem; }
header { border-bottom: 2px solid var(--ink); padding-bottom: .9rem; margin-bottom: 1.4rem; }
header .kind { text-transform: uppercase; letter-spacing: .09em; font-size: .74rem; color: var(--muted); }
h1 { font-size: 1.75rem; line-height: 1.2; margin: .15rem 0 .3rem; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 1.12rem; margin: 2.1rem 0 .5rem; padding-bottom: .2rem; border-bottom: 1px solid var(--rule);
  font-weight: 650; }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem; font-weight: 650; }
p { margin: .4rem 0 .7rem; }
.muted, figcaption, small { color: var(--muted); }
small, figcaption { font-size: .82rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.1rem, 1fr)); gap: .7rem; margin: 1rem 0
  1.2rem; }
.fact { border: 1px solid var(--rule); border-top: 3px solid var(--teal); padding: .5rem .65rem .55rem; }
.fact b { display: block; font-size: 1.5rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.fact b i { font-style: normal; font-size: .9rem; font-weight: 400; color: var(--muted); }
td.words, th.words { text-align: left; }
.beside { display: grid; grid-template-columns: minmax(0, auto) minmax(13rem, 1fr); gap: 0 1.6rem; align-items: center; }
.beside p { font-size: .92rem; }
p.muted { font-size: .88rem; }
.fact span { display: block; font-size: .78rem; line-height: 1.3; color: var(--muted); }
.fact.worse { border-top-color: var(--worse); }
.fact.worse b { color: var(--worse); }
.doubts { border-left: 4px solid #d99a1b; background: var(--warn-wash); padding: .7rem 1rem .75rem; margin: 1rem 0; }
.doubts h3 { margin: 0 0 .25rem; color: var(--warn); }
.doubts ul { margin: 0; padding-left: 1.1rem; }
.doubts li { margin: .15rem 0; }
.fine { border-left: 4px solid var(--teal); background: #eef7f8; padding: .6rem 1rem; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; margin: .5rem 0 .8rem; font-variant-numeric:
  tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--muted); border-bottom: 1px solid var(--ink); padding: .25rem
  .5rem; vertical-align: bottom; line-height: 1.25; }
td { text-align: right; border-bottom: 1px solid var(--rule); padding: .25rem .5rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.total td { font-weight: 650; border-bottom: 1px solid var(--ink); }
td.worse { color: var(--worse); font-weight: 600; }
dl { display: grid; grid-template-columns: 11rem 1fr; gap: .15rem 1rem; font-size: .88rem; margin: .4rem 0 .9rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: .8rem 0 1rem; }
img { max-width: 100%; height: auto; display: block; }
pre { font: .76rem/1.45 "Source Code Pro", Consolas, "DejaVu Sans Mono", monospace; background: var(--wash); padding:
  .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--rule); }
code { font: .82em "Source Code Pro", Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
footer { margin-top: 2.4rem; border-top: 1px solid var(--rule); padding-top: .6rem; font-size: .82rem; color:
  var(--muted); font-style: italic; }
@media screen and (max-width: 42rem) { section { overflow-x: auto; } .beside, dl { grid-template-columns: 1fr; } }
@page { size: A4; margin: 14mm 13mm; }
@media print { html { font-size: 12.5px; } body { margin: 0; padding: 0; max-width: none; } h2, h3 { break-after:
  avoid; } figure, tr, .fact, .doubts, .beside, dl { break-inside: avoid; } pre { break-inside: auto; } * {
  print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def page(title: str, kind: str, subtitle: str, sections: Sequence[str], footer: str) -> str:
    """Put a whole page together; `sections` are HTML, all else is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_OUTSIDE}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header><div class="kind">{escape(kind)}</div><h1>{escape(title)}</h1>'
        f'<div class="muted">{escape(subtitle)}</div></header>\n'
        + "\n".join(sections)
        + f"\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def section(heading: str, *pieces: str) -> str:
    """Put a heading over pieces of HTML."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(pieces) + "\n</section>"


def paragraph(text: str, muted: bool = False) -> str:
    """Write a paragraph of text."""
    return f"<p{' class=muted' if muted else ''}>{escape(text)}</p>"


def fact(value: str, unit: str, words: str, worse: bool = False) -> str:
    """Write one number large, with what it is below."""
    shown = f"{escape(value)} <i>{escape(unit)}</i>" if unit else escape(value)
    return f'<div class="fact{" worse" if worse else ""}"><b>{shown}</b><span>{escape(words)}</span></div>'


def facts(cells: Sequence[str]) -> str:
    """Lay large numbers side by side; each is HTML from `fact`."""
    return f'<div class="facts">{"".join(cells)}</div>'


def warning(heading: str, sentences: Sequence[str]) -> str:
    """Write sentences that nobody should miss."""
    points = "".join(f"<li>{escape(sentence[:1].upper() + sentence[1:])}.</li>" for sentence in sentences)
    return f'<div class="doubts"><h3>{escape(heading)}</h3><ul>{points}</ul></div>'


def fine(text: str) -> str:
    """Say that nothing was found."""
    return f'<div class="fine">{escape(text)}</div>'


def beside(picture: str, *pieces: str) -> str:
    """Lay pieces of HTML to the right of a picture."""
    return f'<div class="beside">{picture}<div>{"".join(pieces)}</div></div>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], totals: int = 0, words: int = 0) -> str:
    """Write a table of text.

    Parameters
    ----------
    headings : sequence of str
    rows : sequence of sequence of str
        A cell that begins with ``!`` stands out as worse.
    totals : int
        So many of the last rows stand out.
    words : int
        So many of the last columns hold words rather than numbers.
    """
    numbers = len(headings) - words
    head = "".join(f"<th{'' if n < numbers else ' class=words'}>{escape(text)}</th>" for n, text in enumerate(headings))
    body = []
    for number, row in enumerate(rows):
        kind = " class=total" if number >= len(rows) - totals else ""
        body.append(f"<tr{kind}>{''.join(_cell(text, n >= numbers) for n, text in enumerate(row))}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(text: str, words: bool) -> str:
    if text.startswith("!"):
        return f"<td class=worse>{escape(text[1:])}</td>"
    return f"<td{' class=words' if words else ''}>{escape(text)}</td>"


def definitions(words: Mapping[str, str]) -> str:
    """Write pairs of term and text."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in words.items())}</dl>"


def picture(address: str, words: str, caption: str = "") -> str:
    """Show a picture that its own address holds; `words` are for those who cannot see it."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{address}" alt="{escape(words)}">{below}</figure>'


def verbatim(text: str) -> str:
    """Show text as it is."""
    return f"<pre>{escape(text.strip())}</pre>"

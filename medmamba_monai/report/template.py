"""The page's template and style sheet. Jinja2 escapes every value; the page needs no script and no network."""

from __future__ import annotations

__all__ = ["STYLE", "TEMPLATE"]

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: #fff; color: #1b1f24;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 2px solid #d5dae1; }
h3 { font-size: 1.02rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.notice { border: 2px solid #8a4b00; border-radius: 6px; background: #fff8ec; padding: .6rem .9rem; max-width: none; }
.muted, figcaption, caption { color: #4a525c; font-size: .9rem; }
nav ul { list-style: none; margin: 1rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: #00538a; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1rem 0;
  padding: 0; list-style: none; }
.cards li { border: 1px solid #d5dae1; border-radius: 6px; padding: .6rem .8rem; }
.cards strong { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.scroll { overflow-x: auto; margin: .75rem 0; }
.scroll:focus-visible { outline: 3px solid #0072b2; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #e3e7ec; white-space: nowrap; }
th:first-child, td.text, th.text { text-align: left; }
tbody th.file { text-align: left; white-space: normal; min-width: 15rem; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #9aa4b1; vertical-align: bottom; }
tbody th { font-weight: 500; max-width: 18rem; white-space: normal; }
tfoot td, tfoot th { font-weight: 600; border-top: 2px solid #9aa4b1; }
figure { margin: 1rem 0 1.75rem; }
figure img { display: block; width: 100%; min-width: 34rem; height: auto; }
.explained { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
.explained figure { margin: 0; }
.explained img { min-width: 0; }
pre { background: #f4f6f8; border: 1px solid #d5dae1; border-radius: 6px; padding: .7rem .9rem; overflow-x: auto;
  font-size: .85rem; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; border-top: 1px solid #d5dae1; padding-top: .5rem; }
@media print { .scroll { overflow: visible; } figure, tr { break-inside: avoid; } figure img { min-width: 0; } }
"""

_HTML = """\
{% macro picture(figure) -%}
<figure>
<div class="scroll" tabindex="0" role="region" aria-label="{{ figure.title }}">
<img src="{{ figure.address }}" width="{{ figure.width }}" height="{{ figure.height }}" alt="{{ figure.alt }}"
 style="max-width: {{ figure.shown }}px">
</div>
<figcaption>{{ figure.caption }}</figcaption>
</figure>
{%- endmacro %}
{% macro grid(table) -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.caption }}">
<table>
<caption>{{ table.caption }}</caption>
<thead><tr>
{% for cell in table.head %}<th scope="col"{% if table.texts %} class="text"{% endif %}>{{ cell }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows -%}
<tr><th scope="row"{% if table.files %} class="file"{% endif %}>{{ row[0] }}</th>
{%- for cell in row[1:] %}<td{% if table.texts %} class="text"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor -%}
</tbody>
{% if table.foot %}<tfoot><tr><th scope="row">{{ table.foot[0] }}</th>
{%- for cell in table.foot[1:] %}<td>{{ cell }}</td>{% endfor %}</tr></tfoot>{% endif %}
</table>
</div>
{%- endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{{ page.title }}</title>
<style>STYLE_SHEET</style>
</head>
<body>
<header>
<h1>{{ page.title }}</h1>
<p class="muted">{{ page.subtitle }}</p>
<p class="notice"><strong>Research software.</strong> Not a medical device, not for diagnosis. These numbers describe
one network on one set of images; the <a href="#limits">limits</a> belong to them.</p>
<nav aria-label="Sections"><ul>
{% for section in page.sections %}<li><a href="#{{ section.id }}">{{ section.title }}</a></li>
{% endfor %}</ul></nav>
</header>
<main>
<ul class="cards">
{% for card in page.cards %}<li>{{ card.name }}<strong>{{ card.value }}</strong>
<span class="muted">{{ card.note }}</span></li>
{% endfor %}</ul>
{% for section in page.sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
{% for text in section.texts %}<p>{{ text }}</p>
{% endfor %}
{% if section.points %}<ul>{% for text in section.points %}<li>{{ text }}</li>
{% endfor %}</ul>{% endif %}
{% for table in section.tables %}{{ grid(table) }}
{% endfor %}
{% for figure in section.figures %}{{ picture(figure) }}
{% endfor %}
{% if section.examples %}<div class="explained">
{% for figure in section.examples %}<figure><img src="{{ figure.address }}" width="{{ figure.width }}"
 height="{{ figure.height }}" alt="{{ figure.alt }}"><figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}</div>{% endif %}
{% for name, text in section.commands.items() %}<h3>{{ name }}</h3>
<pre tabindex="0"><code>{{ text }}</code></pre>
{% endfor %}
{% for text in section.after %}<p class="muted">{{ text }}</p>
{% endfor %}
{% if section.reasons %}<details><summary>{{ section.reasons | length }} values that could not be computed</summary>
<ul>{% for name, reason in section.reasons.items() %}<li>{{ name }}: {{ reason }}</li>
{% endfor %}</ul></details>{% endif %}
</section>
{% endfor %}
</main>
<footer class="muted">{{ page.footer }}</footer>
</body>
</html>
"""

TEMPLATE = _HTML.replace("STYLE_SHEET", STYLE)

"""The style of the page: one column of text, figures in a grid, for screens in light and dark and for paper."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2126; --quiet: #575f69; --hair: #dde1e6; --rule: #aab1ba; --wash: #f4f6f8;
  --a: #1a5fa6; --b: #a8480c }
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --ink: #e6e9ed; --quiet: #a3abb5; --hair: #2c323a; --rule: #59626d; --wash: #1d2126;
  --a: #7db5ee; --b: #f2a563 } }
@media print { :root { color-scheme: light } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
main { max-width: 70rem; margin: 0 auto; padding: 3rem 1.25rem 4rem }
p, li, dd { max-width: 42rem } p { margin: 0 0 .9rem } p:empty { display: none }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; letter-spacing: -.012em; margin: 0 0 .75rem }
h2 { font-size: 1.25rem; line-height: 1.3; font-weight: 650; margin: 0 0 .6rem }
h3 { font-size: 1rem; font-weight: 650; margin: 1.5rem 0 .4rem }
section { border-top: 1px solid var(--hair); margin-top: 2.5rem; padding-top: 1.1rem }
.lead { font-size: 1.0625rem } .quiet, .missing, figcaption .unit { color: var(--quiet) }
.missing code { color: var(--ink) }
code { font: .92em ui-monospace, "SF Mono", Consolas, "Liberation Mono", monospace }
.a { color: var(--a) } .b { color: var(--b) } b.run { font-weight: 700 }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; margin: 1rem 0 0; padding: 0 }
a { color: var(--a); text-underline-offset: .2em; text-decoration-thickness: 1px }
dl.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.1rem 1.5rem;
  margin: 1.5rem 0 0 }
dl.figures div { border-top: 2px solid var(--ink); padding-top: .35rem }
dl.figures dt { color: var(--quiet); font-size: .875rem }
dl.figures dd { margin: 0; font-size: 1.3rem; line-height: 1.3 }
dl.figures dd small { display: block; font-size: .8125rem; color: var(--quiet) }
.grid-of-figures { display: grid; gap: 1.5rem 2rem; grid-template-columns: repeat(2, minmax(0, 1fr)) }
.grid-of-figures.small { grid-template-columns: repeat(3, minmax(0, 1fr)) }
figure { margin: 1.1rem 0 0; min-width: 0; max-width: 56rem }
table + p { margin-top: 1.75rem }
figcaption { margin-bottom: .35rem; font-size: .9375rem }
figcaption strong { font-weight: 650 }
svg { display: block; width: 100%; height: auto; overflow: hidden } .narrow { display: none }
svg text { font-size: 12px; fill: currentColor; font-variant-numeric: tabular-nums }
svg .tick { fill: var(--quiet) } svg .grid { stroke: var(--hair) } svg .axis { stroke: var(--rule) }
svg .line { fill: none; stroke: currentColor; stroke-width: 2.2; stroke-linejoin: round }
svg .line.thin { stroke-width: 1.1 } svg .dot { fill: currentColor } svg .name { font-weight: 600 }
svg .name.thin { font-weight: 400 } svg .roof { fill: none; stroke: currentColor; stroke-width: 1.6 }
svg .spot { fill: currentColor; fill-opacity: .5; stroke: currentColor } svg .label { fill: var(--ink) }
.map { color: var(--ink) }
table { border-collapse: collapse; margin: 1.1rem 0 0; font-size: .9375rem; width: 100%; max-width: 56rem }
caption { text-align: left; font-weight: 650; padding-bottom: .35rem }
th, td { text-align: left; vertical-align: baseline; padding: .32rem 1rem .32rem 0; font-weight: 400;
  border-bottom: 1px solid var(--hair) }
thead th { color: var(--quiet); font-size: .8125rem; border-bottom-color: var(--rule); vertical-align: bottom }
th:last-child, td:last-child { padding-right: 0 } .tight { white-space: nowrap }
.number { text-align: right } tbody th:not(.tight) { min-width: 6rem }
td small, th small { display: block; color: var(--quiet); font-size: .8125rem }
.tables { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 3rem; align-items: start }
.track { display: inline-block; width: 3.5rem; margin-right: .6rem; text-align: left }
.bar { display: inline-block; height: .6em; background: currentColor; opacity: .75 }
footer { margin-top: 3rem; color: var(--quiet); font-size: .875rem }
@media (max-width: 60rem) { .grid-of-figures.small { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
@media (max-width: 44rem) {
  main { padding-top: 1.75rem } th, td { padding-right: .65rem } h1 { font-size: 1.55rem }
  .wide, .spare { display: none } .narrow { display: block }
  .grid-of-figures, .grid-of-figures.small, .tables { grid-template-columns: minmax(0, 1fr) }
  dl.figures { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
@media print {
  @page { margin: 16mm 14mm } html { font-size: 9.5pt } main { max-width: none; padding: 0 } nav { display: none }
  h1, h2, h3, caption, thead, figcaption { break-after: avoid } tr:first-child { break-before: avoid }
 figure, tr, dl.figures div { break-inside: avoid }
  .spare { display: revert } .track.spare { display: inline-block }
  div.wide { display: block } .narrow { display: none }
  .grid-of-figures .wide { display: none } .grid-of-figures .narrow { display: block }
  .grid-of-figures, .tables { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  .grid-of-figures.small { grid-template-columns: repeat(3, minmax(0, 1fr)) }
  .bar { print-color-adjust: exact; -webkit-print-color-adjust: exact } a { color: inherit; text-decoration: none } }
"""

# Within the shadow of a memory map, which brings a style of its own.
MAP_STYLE = ":host { display: block } svg { display: block; width: 100%; height: auto }"

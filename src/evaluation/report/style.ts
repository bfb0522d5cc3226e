/** The report's whole style sheet; nothing is loaded from elsewhere. */
export const style = `
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #f6f7f9; --ink: #1c2430; --muted: #667085; --grid: #e3e6eb; --accent: #2563c9;
  --s1: #2f6fd6; --s2: #d2691e; --s3: #12856a; --s4: #8457c9; --s5: #b83a6a; --s6: #71797f;
  --good: #12856a; --heat: 37, 99, 201;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --raised: #1c222b; --ink: #e4e8ee; --muted: #98a2b3; --grid: #303846; --accent: #7fb0ff;
    --s1: #6ea2f7; --s2: #f0955a; --s3: #46c2a0; --s4: #b794f0; --s5: #ea7fa6; --s6: #a3acb5;
    --good: #46c2a0; --heat: 110, 162, 247;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei",
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", sans-serif;
}
header { border-bottom: 1px solid var(--grid); padding-bottom: 1.25rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .75rem; }
h3 { font-size: 1.02rem; margin: 1.75rem 0 .5rem; }
p { margin: .6rem 0; max-width: 46rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.meta, .note, figcaption { color: var(--muted); font-size: .88rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin-top: .9rem; font-size: .92rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.8rem, 1fr)); gap: .8rem; margin: 1.5rem 0 1rem; }
.card { background: var(--raised); border-radius: .6rem; padding: .85rem 1rem; }
.card b { display: block; font-size: 1.55rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .84rem; color: var(--muted); line-height: 1.4; }
.card .what { color: var(--ink); font-weight: 550; }
.expectation { border-left: 3px solid var(--accent); padding: .1rem 0 .1rem 1rem; margin: 1.25rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); gap: 1.5rem 1.75rem; }
figure { margin: .5rem 0; min-width: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
.charttitle { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .9rem; font-weight: 600; font-size: .95rem; }
.legend { font-weight: 400; font-size: .84rem; color: var(--muted); white-space: nowrap; }
.swatch { display: inline-block; width: .85em; height: .85em; border-radius: .25em; margin-right: .4em; vertical-align: -.05em; }
.empty { color: var(--muted); background: var(--raised); border-radius: .5rem; padding: 1.6rem; text-align: center; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .75rem 0; }
.wide { width: 100%; }
th, td { text-align: right; padding: .42rem .7rem; border-bottom: 1px solid var(--grid); }
td { white-space: nowrap; }
th { vertical-align: bottom; line-height: 1.3; font-weight: 600; font-size: .84rem; color: var(--muted); }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
td small { display: block; color: var(--muted); white-space: normal; font-size: .84em; }
tr.own td { background: var(--raised); font-weight: 600; }
.confusion td { text-align: center; min-width: 7rem; border: 2px solid var(--paper); padding: .7rem; }
.confusion th { border: 0; text-align: center; }
.confusion th[scope=row] { text-align: right; vertical-align: middle; }
.confusion b { display: block; font-size: 1.15rem; }
.confusion small { color: inherit; opacity: .75; }
.generation { break-inside: avoid; border-top: 1px solid var(--grid); padding: 1rem 0 1.1rem; }
.prompt { color: var(--muted); font-size: .9rem; white-space: pre-line; overflow-wrap: anywhere; margin-bottom: .6rem; unicode-bidi: isolate; }
.alarms { border-left: 3px solid #c2410c; padding: .1rem 0 .1rem 1rem; margin: .8rem 0; }
.alarms ul { margin: .2rem 0; padding-left: 1.1rem; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .8rem; }
.text { background: var(--raised); border-top: 3px solid; border-radius: .3rem .3rem .6rem .6rem; padding: .6rem .85rem .75rem; min-width: 0; }
.text header { all: unset; display: flex; flex-wrap: wrap; justify-content: space-between; gap: .5rem; font-size: .84rem; font-weight: 600; }
.text .reward { color: var(--muted); font-weight: 400; font-variant-numeric: tabular-nums; }
.said { margin-top: .3rem; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; line-height: 1.65; }
pre { background: var(--raised); border-radius: .5rem; padding: .85rem 1rem; overflow-x: auto; font-size: .86rem; line-height: 1.55; }
pre, code, .value { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Noto Sans Mono CJK SC", monospace; }
.settings { columns: 20rem 2; column-gap: 2.5rem; font-size: .86rem; }
.settings section { break-inside: avoid; margin-bottom: 1rem; }
.settings h3 { margin: .2rem 0 .3rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: var(--muted); }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; }
@media print {
  :root { --paper: #fff; --raised: #f4f5f7; --ink: #000; --muted: #555; --grid: #ddd; color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
}
`;

"""How the page looks, by day and by night."""

STYLE = """\
:root {
  color-scheme: light dark;
  --back: #fbfbf9; --card: #ffffff; --text: #1c2024; --soft: #60646c; --rule: #e3e4e0; --grid: #ecece8;
  --s0: #0b6e99; --s1: #a8adb4; --s2: #d9822b; --s3: #7a5ea8;
  --good: #1a7f4b; --bad: #c4320a; --allowed: #cfe8da;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171a; --card: #1b1f23; --text: #e8eaec; --soft: #9aa0a8; --rule: #2d3238; --grid: #262b30;
    --s0: #4cb3e0; --s1: #6c737b; --s2: #eba25a; --s3: #b39ddb;
    --good: #4cc38a; --bad: #ff8b6b; --allowed: #1f3d2d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 40px 24px 80px; max-width: 1000px; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; }
h2 { font-size: 21px; margin: 56px 0 4px; letter-spacing: -.01em; }
p { margin: 0 0 14px; max-width: 46em; }
p.soft, .soft { color: var(--soft); }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 14px; margin: 22px 0 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 18px 12px; }
.card b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card .verdict { float: right; font-size: 13px; font-weight: 600; padding: 2px 9px; border-radius: 20px; border: 1px solid; }
.verdict.good, td.good { color: var(--good); } .verdict.bad, td.bad { color: var(--bad); }
.card p { font-size: 14px; line-height: 1.4; margin: 2px 0 6px; }
.card .soft { font-size: 13px; }
figure { margin: 16px 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px 14px; overflow-x: auto; }
figcaption { font-size: 14px; font-weight: 600; margin: 0 0 10px; }
svg { display: block; width: 100%; height: auto; }
figure svg { min-width: 560px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
details { margin: 14px 0 0; } summary { cursor: pointer; color: var(--soft); font-size: 14px; }
svg text { fill: var(--text); font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg text.heading { font-weight: 600; } svg text.axis { fill: var(--soft); font-size: 12px; }
svg text.value { font-variant-numeric: tabular-nums; }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
svg text.t0 { fill: var(--s0); font-weight: 600; } svg text.t1 { fill: var(--soft); } svg text.t2 { fill: var(--s2); } svg text.t3 { fill: var(--s3); }
path.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
path.line.s0 { stroke: var(--s0); } path.line.s1 { stroke: var(--s1); } path.line.s2 { stroke: var(--s2); } path.line.s3 { stroke: var(--s3); }
path.band { opacity: .16; stroke: none; }
path.whisker { stroke: var(--text); stroke-width: 1.2; fill: none; opacity: .65; }
path.grid { stroke: var(--grid); } path.budget { stroke: var(--bad); stroke-dasharray: 5 4; stroke-width: 1.3; }
path.scale { stroke: var(--rule); stroke-width: 6; stroke-linecap: round; } path.allowed { stroke: var(--allowed); stroke-width: 6; }
path.limit { stroke: var(--text); stroke-width: 1.5; } path.range { stroke-width: 2; stroke-linecap: round; }
path.range.good { stroke: var(--good); } path.range.bad { stroke: var(--bad); }
circle.good { fill: var(--good); } circle.bad { fill: var(--bad); }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--rule); font-size: 13px; color: var(--soft); }
"""

"""One static page of the study: the notes' statements, figures, measured claims, verdicts and commands."""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.claims import Claim, summary
from experiments.experiment import Experiment
from experiments.statements import FOUND, NOTES, STATEMENTS
from jaxopt_study import files
from jaxopt_study.records import MALFORMED, Record, RecordError, load

_PNG = b"\x89PNG\r\n\x1a\n"  # how every such file starts
CLASSES = {"PASS": "pass", "FAIL": "fail", "NOT RESOLVED": "open"}


def page(found: Mapping[str, Experiment[Any]], folder: Path) -> str:
    """Return the page as HTML, with the figures in it: it needs no other file and no network.

    Args:
        found: The experiments, in the order of the chapters.
        folder: Folder of the records, one folder per experiment.

    Returns:
        The page. An experiment without a readable record is listed with the command that makes it.
    """
    sections, entries, chapter = [], [], None
    counts = dict.fromkeys(CLASSES, 0)
    for name, experiment in found.items():
        if experiment.chapter != chapter:
            chapter = experiment.chapter
            sections.append(f"<h2>{_text(chapter)}</h2>")
            entries.append(f"<li class=chapter>{_text(chapter)}</li>")
        try:
            record = load(folder / name)
            claims = experiment.claims(record)
            section = _section(name, experiment, record, claims, folder / name)
        except MALFORMED:
            why = (
                "The record does not hold what this experiment writes."
                if os.path.exists(folder / name)
                else "No record yet."
            )
            sections.append(_missing(name, experiment, why))
            entries.append(f'<li><a href="#{name}">{name}</a> –</li>')
            continue
        verdicts = summary(claims)
        counts = {verdict: counts[verdict] + verdicts[verdict] for verdict in counts}
        sections.append(section)
        entries.append(f'<li><a href="#{name}">{name}</a> {_badges(verdicts)}</li>')
    return _PAGE.format(
        style=_STYLE, script=_SCRIPT, contents="".join(entries), index=_index(found), sections="".join(sections),
        summary=f"{len(found)} experiments, {sum(counts.values())} claims: {_badges(counts)}",
    )  # fmt: skip


def _section(name: str, experiment: Experiment[Any], record: Record, claims: Sequence[Claim], folder: Path) -> str:
    figures = "".join(_figure(name, path) for path in sorted(folder.glob("*.png")))
    statements = "".join(
        f"<li><b>Note {_text(note)}:</b> {_text(words)}</li>" for note, words in STATEMENTS.get(name, ())
    )
    preset = record.config["preset"]
    if preset not in experiment.presets:
        raise RecordError(f"{name} has the presets {sorted(experiment.presets)}; the record has {preset!r}.")
    data = " --data-dir FOLDER" if preset == "paper" and record.config.get("data") == "mnist" else ""
    seconds = record.results.get("run_seconds")
    versions: Any = record.environment.get("versions", {})
    made = [record.created[:10], f"jax {versions.get('jax')}", f"{record.environment.get('cpu_count')} processor cores"]
    if isinstance(seconds, int | float):
        made.insert(1, f"{seconds:.0f} s")
    return (
        f'<section id="{name}"><h3>{_text(experiment.question)}</h3>'
        f"<p class=name>{name} {_badges(summary(claims))}</p>"
        f"{'<ul class=notes>' + statements + '</ul>' if statements else ''}{_found(name)}"
        f"<div class=figures>{figures}</div>{''.join(map(_claim, claims))}"
        f"<p class=made><code>python -m experiments run {name} --preset {preset}{data} --check</code><br>"
        f"{_text(' · '.join(made))}</p></section>"
    )


def _found(name: str) -> str:
    return f"<p class=found><b>Found:</b> {_text(FOUND[name])}</p>" if name in FOUND else ""


def _figure(name: str, path: Path) -> str:
    """Return a figure in a button; a sentence in place of what is not one, or cannot be read."""
    try:
        image = files.read_bounded(path)
    except (OSError, ValueError):
        image = b""
    if not image.startswith(_PNG):
        return f"<p>{_text(path.name)} is not a figure that can be read.</p>"
    return (
        f'<button class=figure><img src="data:image/png;base64,{base64.b64encode(image).decode()}" '
        f'alt="{_text(f"{name}: {path.stem}")}" loading=lazy></button>'
    )


def _claim(claim: Claim) -> str:
    seeds = f", {claim.measured.num_seeds} seeds" if claim.measured.num_seeds else ""
    control = "fails, as it must" if claim.control_verdict == "FAIL" else "does not fail, so nothing is shown"
    remark = f"<p class=remark>{_text(claim.remark)}</p>" if claim.remark else ""
    return (
        f'<article class="claim {CLASSES[claim.verdict]}"><p><span class=verdict>{claim.verdict}</span> '
        f"{_text(claim.statement)}</p>{remark}<dl>"
        f"<dt>measured</dt><dd>{_text(str(claim.measured))} <small>({_text(claim.measured.method)}{seeds})</small></dd>"
        f"<dt>expected</dt><dd>{_text(str(claim.expected))} <small>{_text(claim.expected.source)}</small></dd>"
        f"<dt>control</dt><dd>{_text(claim.control.variation)}: {_text(str(claim.control.measured))} "
        f"<small>{control}</small></dd></dl></article>"
    )


def _missing(name: str, experiment: Experiment[Any], why: str) -> str:
    return (
        f'<section id="{name}"><h3>{_text(experiment.question)}</h3><p class=name>{name}</p>'
        f"<p>{_text(why)}</p>"
        f"<p class=made><code>python -m experiments run {name} --preset paper</code></p></section>"
    )


def _index(found: Mapping[str, Experiment[Any]]) -> str:
    """Return the notes' statements in their order, each with the experiments that examine it."""
    rows = []
    for note, title in NOTES.items():
        about = [(name, words) for name in found for number, words in STATEMENTS.get(name, ()) if number == note]
        rows += [f"<h4>Note {_text(title)}</h4><table><tr><th>The notes say</th><th>The experiment found</th></tr>"]
        rows += [
            f'<tr><td>{_text(words)}</td><td>{_text(FOUND.get(name, ""))} <a href="#{name}">{name}</a></td></tr>'
            for name, words in about
        ]
        rows += ["</table>"]
    return "".join(rows)


def _badges(counts: Mapping[str, int]) -> str:
    return " ".join(
        f"<span class={CLASSES[verdict]}>{count} {verdict}</span>" for verdict, count in counts.items() if count
    )


def _text(words: str) -> str:
    return html.escape(words)


_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1b1f24;--soft:#59636e;--line:#d1d9e0;--panel:#f6f8fa;
--pass:#0a6640;--fail:#a40e26;--open:#7a5a00;--link:#0550ae}
@media(prefers-color-scheme:dark){:root{--ground:#0d1117;--text:#e6edf3;--soft:#9aa5b1;--line:#30363d;--panel:#161b22;
--pass:#4cc38a;--fail:#ff8589;--open:#e3b341;--link:#79b8ff}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1rem}a{color:var(--link)}h1{line-height:1.2}h2{margin-top:3rem}
h3{margin:0}section{border-top:1px solid var(--line);padding:1.5rem 0}.name{color:var(--soft);margin:.2rem 0}
nav ul{columns:3 16rem;padding:0;list-style:none;font-size:.9rem}nav .chapter{font-weight:600;margin-top:.6rem;
break-after:avoid}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line);width:50%}
details{margin:1rem 0}summary{cursor:pointer}.notes{padding-left:1.2rem}
.figures{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}.figure{flex:1 1 20rem;max-width:100%;padding:0;border:0;
background:none;cursor:zoom-in}.figure img,dialog img{max-width:100%;background:#fff;border:1px solid var(--line)}
.claim{background:var(--panel);border-left:4px solid var(--line);padding:.5rem .9rem;margin:.7rem 0;
overflow-wrap:anywhere}.claim p{margin:.2rem 0}.claim.pass{border-color:var(--pass)}
.claim.fail{border-color:var(--fail)}.claim.open{border-color:var(--open)}.verdict{font-weight:600}.pass>p>.verdict,span.pass{color:var(--pass)}
.fail>p>.verdict,span.fail{color:var(--fail)}.open>p>.verdict,span.open{color:var(--open)}.remark{font-style:italic}
dl{display:grid;grid-template-columns:5.5rem 1fr;gap:.1rem .6rem;margin:.4rem 0}dt{color:var(--soft)}dd{margin:0}
small{color:var(--soft)}.made{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}
input{width:100%;padding:.6rem;font:inherit;color:inherit;background:var(--panel);border:1px solid var(--line)}
.search{position:sticky;top:0;background:var(--ground);padding:.5rem 0;z-index:1}dialog{max-width:96vw;padding:.5rem;
border:1px solid var(--line);background:var(--ground);cursor:zoom-out}dialog img{max-height:90vh}[hidden]{display:none}
"""
_SCRIPT = """
const box=document.querySelector('input'),told=document.querySelector('#told'),view=document.querySelector('dialog');
box.addEventListener('input',()=>{const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let count=0;
for(const section of document.querySelectorAll('section')){let any=false;
const head=(section.querySelector('h3').textContent+section.id).toLowerCase();
for(const claim of section.querySelectorAll('.claim')){const text=head+claim.textContent.toLowerCase();
claim.hidden=!words.every(word=>text.includes(word));if(!claim.hidden){any=true;count++}}
section.hidden=words.length>0&&!any}
told.textContent=words.length?count+' claims':''});
for(const figure of document.querySelectorAll('.figure'))figure.addEventListener('click',()=>{
view.replaceChildren(figure.firstElementChild.cloneNode());view.showModal()});
view.addEventListener('click',()=>view.close());
"""
_PAGE = """<!doctype html><html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width,initial-scale=1"><title>The study: claims, measured</title>
<style>{style}</style></head><body><main><h1>The study: claims on deep-learning optimization, measured</h1>
<p>The study examines five lecture notes on deep-learning optimization, 000–004: "the notes" on this page. Their
experiments come from Saito (2016), <i>Deep Learning from Scratch</i>, and their theory from Goodfellow, Bengio and
Courville (2016), <i>Deep Learning</i>. Each experiment examines some of their statements. A claim has a measured value
with its interval, the region in which it must lie, with a source, and a negative control that must miss this region:
PASS if the whole interval lies in the region and the control fails, FAIL if none of it does, NOT RESOLVED
otherwise.</p><p>{summary}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<details><summary>The notes' statements, note by note</summary>{index}</details>
<div class=search><input type=search placeholder="Search the claims" aria-label="Search the claims">
<small id=told aria-live=polite></small></div>{sections}</main><dialog aria-label="Figure"></dialog>
<script>{script}</script></body></html>
"""

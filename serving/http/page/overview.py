"""The page of a server whose model does not answer questions: what it is, and what can be asked."""

from __future__ import annotations

from html import escape

from dynamic_tinybert.serving.http.by_task import USES, kind_of
from dynamic_tinybert.serving.jobs import ModelFacts


def overview(facts: ModelFacts) -> str:
    """The page in HTML, without scripts."""
    does, _, endpoints = USES[kind_of(facts)].partition(": ")
    configs = ", ".join(facts.length_configs)
    labels = ", ".join(facts.labels)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(facts.name)}</title>
<link rel="stylesheet" href="page.css">
<link rel="icon" href="icon.svg">
</head>
<body>
<header>
<p class="brand">Dynamic-TinyBERT</p>
</header>
<main>
<h1>{escape(facts.name)}</h1>
<p>This server {escape(does)}. Ask with {escape(endpoints)}.</p>
<p>Labels: {escape(labels)}. Length configurations: {escape(configs)}.</p>
<p><a href="openapi.json">What can be asked</a> · <a href="info">The model</a> · <a href="metrics">Metrics</a></p>
</main>
</body>
</html>
"""

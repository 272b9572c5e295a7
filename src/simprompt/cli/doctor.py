"""`simprompt doctor`: what is installed, what is missing, problems and how to fix them."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from simprompt.cli.options import Json
from simprompt.utils.terminal import one_line, say


def doctor(json_: Json = False) -> None:
    """Check the installation: versions, hardware, caches, models; problems and how to fix them."""
    from simprompt.cli.checks import examine

    findings = examine()
    wrong = [finding for finding in findings if finding.problem]
    if json_:
        say(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        group = ""
        for finding in findings:
            if finding.group != group:
                say(f"{'' if not group else chr(10)}{finding.group}")
                group = finding.group
            say(f"  {finding.name:{width}}  {one_line(finding.value)}")
            if finding.problem:
                say(f"  {'':{width}}  ! {finding.problem}")
        say()
        say(
            "Nothing is wrong."
            if not wrong
            else f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} to fix, marked with !."
        )
    if wrong:
        raise typer.Exit(1)

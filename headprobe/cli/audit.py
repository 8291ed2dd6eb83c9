"""headprobe audit"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headprobe.cli.options import GATE, OPTIONS, OUTPUT, accepting, scan_options
from headprobe.cli.report import save_page
from headprobe.cli.show import check_output_options, first_look, is_report, progress, say, top
from headprobe.errors import UsageError

AUDIT_OPTIONS = tuple(name for name in OPTIONS if name not in ("null", "null_runs", "probe", "examples"))
AUDIT_OUTPUT = tuple(name for name in OUTPUT if name != "sort")
FORMATS = ("table", "json", "markdown", "junit", "sarif", "github")
FINDINGS = 1


@accepting(*GATE, *AUDIT_OPTIONS, *AUDIT_OUTPUT)
def audit(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A hub name, a folder, or a saved report (.json).")
    ] = None,
    **options: Any,
) -> None:
    """Judge a model's attention by rules; exit code 1 if it fails. With --baseline also what became of it.

    Examples:

        headprobe audit ./finetuned --baseline bert-base-uncased

        headprobe audit ./finetuned --baseline base.json --format junit -o audit.sarif > audit.xml

        headprobe audit --explain HP101
    """
    if options["explain"] is not None:
        _explain(options["explain"])
        return
    from headprobe.audits.policy import load_policy

    names = ("policy", "fail_on", "select", "ignore")
    policy = load_policy(**{name: options[name] for name in names}, limits=options["set"])
    if options["show_policy"]:
        _show_policy(policy)
        return
    if model is None:
        raise UsageError("E-USAGE", "no MODEL to audit", "Give a hub name, a folder, or a saved report.")
    baseline, update = options["baseline"], options["update_baseline"]
    _check(model, baseline, update, options)
    with progress(options, model) as watch:
        from headprobe.auditing import facts
        from headprobe.audits.audit import audit_report

        against = None if update else baseline
        known = facts(model, against, options["baseline_revision"], watch, scan_options(options))
        result = audit_report(known, policy)
    if update:
        known.report.save(str(baseline))
        say(f"wrote {baseline}", options)
    _tell(result, options)
    if result.failing and not options["exit_zero"] and not update:
        raise typer.Exit(FINDINGS)


def _check(model: str, baseline: str | None, update: bool, options: dict[str, Any]) -> None:
    """Refuse what is wrong before any work is done."""
    check_output_options(options, FORMATS, (".json", ".html", ".md", ".xml", ".sarif"))
    for path in options["output"]:
        if not Path(path).suffix:
            raise UsageError(
                "E-FORMAT", f"-o {path}: an audit is one file", "Give it .json, .html, .md, .xml or .sarif."
            )
    if update and (baseline is None or Path(baseline).suffix != ".json"):
        raise UsageError("E-OPTION", "--update-baseline needs --baseline with a .json file to write")
    if not is_report(model):
        first_look(model, options)
    if baseline is not None and not update and not is_report(baseline):
        if baseline.endswith(".json"):
            raise UsageError(
                "E-BASELINE",
                f"no baseline at {baseline}",
                "Make it: headprobe audit MODEL --baseline FILE --update-baseline.",
            )
        first_look(baseline, {**options, "base_model": None, "gguf_file": None})


def _tell(result: Any, options: dict[str, Any]) -> None:
    """The audit on standard output, in the files asked for, and in the summary of a step of GitHub Actions."""
    from headprobe.audits.formats import SUFFIXES
    from headprobe.audits.formats.summary import append_summary
    from headprobe.audits.rules import RULES
    from headprobe.view.audit import audit_document, audit_text
    from headprobe.view.terminal import console, show
    from headprobe.write.atomic import atomic_write

    for name in options["output"]:
        path = Path(name)
        if path.suffix == ".html":
            save_page(result, path)
        else:
            atomic_write(path, audit_text(result, SUFFIXES[path.suffix], RULES).encode())
        say(f"wrote {name}", options)
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        append_summary(audit_text(result, "markdown", RULES), os.environ)
    if options["format"] == "table":
        show(audit_document(result, RULES, top=top(options)), console())
    else:
        sys.stdout.write(audit_text(result, options["format"], RULES))


def _explain(code: str) -> None:
    from headprobe.audits.explain import explanation, rule_of

    sys.stdout.write(explanation(rule_of(code)))


def _show_policy(policy: Any) -> None:
    from headprobe.view.audit import policy_document
    from headprobe.view.terminal import console, show

    show(policy_document(policy.rows()), console())

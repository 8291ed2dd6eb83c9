"""What each rule says of itself, as Markdown: for `headprobe rules` and for docs/rules.md."""

from headprobe.audits.policy import VARIABLES
from headprobe.audits.rule import Rule
from headprobe.audits.rules import RULES
from headprobe.errors import UsageError, nearest

FAMILIES = {
    "HP0": "Validity: is there something to judge, and are the numbers sound?",
    "HP1": "Redundancy: heads that repeat each other, or do nothing",
    "HP2": "Change: what became of the heads since the baseline",
}
INTRODUCTION = f"""# Rules

Written by `headprobe.audits.explain.page()` from the rules themselves; a test holds this file to it.

`headprobe audit MODEL` asks the rules HP0xx and HP1xx of a model, and with `--baseline BASE` the rules HP2xx of what
became of it. Findings are notes, warnings or errors; those at `fail-on` (error) or above fail the audit.

- A rule that can't be asked is listed as skipped with the reason. Where the baseline has what the model's report lacks,
  that is a finding (HP004, HP005). An audit that could ask nothing fails (HP000).
- With a baseline, a finding of redundancy that the baseline has as well, at the same heads, is a note of the audit and
  no finding: a model compared with itself has none.
- Three or more heads of a layer that have the same to tell are one finding, and what a stronger rule says of the same
  heads is not said again: HP102 silences HP101, as do HP104 and HP105; HP104 silences HP103; HP202 silences HP207.
- Changes are tested over sequences. Below 6 sequences nothing can be significant: HP007 fails. Below some 11 to 16 a
  single head can't be told from chance: HP008 warns.

## Policy

A policy is the table `[audit]` of the nearest `headprobe.toml` at or above the working directory, or
`[tool.headprobe.audit]` of `pyproject.toml`, or the file that `--policy` names. It is never looked for beside a model.

```toml
[audit]
fail-on = "warning"            # note, warning or error
select = ["HP0", "HP1", "HP2"] # codes or their beginnings
ignore = ["HP103"]

[audit.rules.HP101]
js = 0.002                     # a limit of the rule
severity = "error"             # off, note, warning or error
layers = "0-3"

[[audit.waivers]]
code = "HP101"
layer = 2                      # layer, head and kind narrow it down
head = 3
reason = "tied on purpose, see the model card"
expires = 2031-01-31           # the day itself still counts
```

What the environment says goes over the file, and flags go over both:

| file | environment | flag |
|---|---|---|
| `fail-on` | `{VARIABLES["fail-on"]}` | `--fail-on` |
| `select` | `{VARIABLES["select"]}` | `--select` |
| `ignore` | `{VARIABLES["ignore"]}` | `--ignore` |
| `[audit.rules.HP101] js = 0.002` | `{VARIABLES["set"]}="HP101.js=0.002"` | `--set HP101.js=0.002` |
| | `{VARIABLES["policy"]}` | `--policy` |

Lists are separated by commas or blanks. `--set HP101.severity=off` and `--set HP101.layers=0-3` work as well, and
`headprobe audit --show-policy` prints every setting with its source. HP000 can be neither changed nor waived.
"""


def rule_of(word: str) -> Rule:
    """The rule of that code or name. Raises `UsageError` if there is none."""
    by_name = {rule.name: rule for rule in RULES.values()}
    rule = RULES.get(word.upper()) or by_name.get(word.lower())
    if rule is None:
        raise UsageError("E-RULE", f'no rule "{word}"', nearest(word, (*RULES, *by_name)))
    return rule


def explanation(rule: Rule) -> str:
    """A rule in Markdown, beginning with a heading of the third level."""
    facts: list[str] = [rule.severity]
    facts += ["needs a baseline"] if rule.needs_baseline else []
    facts += [f"needs {', '.join(f'`{column}` of {table}' for table, column in rule.needs)}"] if rule.needs else []
    parts = [f"### {rule.code} {rule.name}", "; ".join(facts).capitalize() + ".", rule.about]
    if rule.limits:
        rows = [
            f"| `{name}` | {limit:g} | {rule.ranges[name][0]:g} to {rule.ranges[name][1]:g} |"
            for name, limit in rule.limits.items()
        ]
        parts.append("\n".join(["| limit | default | may be |", "|---|---|---|", *rows]))
    parts += [
        f"**Why.** {rule.rationale}",
        f"**What to do.** {rule.advice}",
        f"**Passes.** {rule.passes}",
        f"**Fails.** {rule.fails}",
    ]
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """All rules in Markdown: docs/rules.md."""
    parts = [INTRODUCTION]
    for prefix, title in FAMILIES.items():
        parts.append(f"## {prefix}xx. {title}\n")
        parts += [explanation(rule) for code, rule in RULES.items() if code.startswith(prefix)]
    return "\n".join(parts)

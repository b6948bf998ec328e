"""What prepare_data.py prints of its plan and of what came out."""

import collections
from pathlib import Path
from typing import Any

from data_pipelines.preparation.layouts import passed_over_split
from data_pipelines.preparation.merge import DROPPED, REPORT
from data_pipelines.preparation.plan import Plan


def print_plan(plan: Plan, split_file: bool = False) -> None:
    """What was found, before the long work, so that a misread layout shows; `split_file`: one says the splits."""
    items = [item for shard in plan.shards for item in shard.items]
    kinds = collections.Counter(item.kind for item in items)
    people = sorted({item.identity for item in items})
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"found: {found}; {len(people)} identities, as {', '.join(people[:3])}; splits: {', '.join(plan.splits)}")
    if len(people) == 1 < len(items):
        print(f"warning: all {len(items)} items have one identity, {people[0]}, and thus lie in one split")
    loose = [] if split_file else [item.name for item in items if item.split is None]
    if 0 < len(loose) < len(items) and not split_file:
        print(f"warning: {len(loose)} items lie in no split's folder, as {loose[0]}: their identities' hashes decide")
    over = [] if split_file else [(item.name, name) for item in items if (name := passed_over_split(item))]
    if over:
        print(
            f"warning: {len(over)} items lie in folders with names of splits that count for nothing, as {over[0][1]} "
            f"in {over[0][0]}: name the folder that holds the splits as --input, or a --split_file"
        )


def print_report(report: dict[str, Any], target: Path) -> None:
    """Totals, and what deserves a look."""
    for split, counts in report["splits"].items():
        print(f"{split}: {counts['clips']} clips, {counts['frames']} frames, {counts['identities']} identities")
    print(f"dropped: {report['dropped']} ({target / DROPPED} says why)")
    if report["duplicates"]:
        names = report["duplicates"][0]
        first = " = ".join(names[:2]) + (f" = … ({len(names)} in all)" if len(names) > 2 else "")
        print(f"warning: {len(report['duplicates'])} clips are there more than once, as {first} ({target / REPORT})")
    if several := report["identities_in_several_splits"]:
        print(f"warning: {len(several)} identities are in several splits, as {several[0]} ({target / REPORT})")
    print(f"{target}: complete")

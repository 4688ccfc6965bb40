"""What a run of the benchmarks left in its JSON file, looked up by question, case and contender."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Results:
    machine: dict[str, Any]
    date: str
    """Of the run, YYYY-MM-DD."""
    rows: list[Row]
    """The extra_info of each benchmark; see contest.record."""

    def all(self, question: str, case: str | None = None, contender: str | None = None, **match: Any) -> list[Row]:
        """The rows that match, in the order in which they ran."""
        wanted = {"question": question, **match}
        if case is not None:
            wanted["case"] = case
        if contender is not None:
            wanted["contender"] = contender
        return [row for row in self.rows if all(row.get(key) == value for key, value in wanted.items())]

    def one(self, question: str, case: str, contender: str, **match: Any) -> Row | None:
        """The row that matches, or None where that contender was absent."""
        found = self.all(question, case, contender, **match)
        return found[0] if found else None

    def blocks(self) -> list[str]:
        """The names of the blocks, the usual one first."""
        return list(
            dict.fromkeys(
                row["block"] for question in ("block burst", "notifications over ipc") for row in self.all(question) if "block" in row
            )
        )


def read(path: str | Path) -> Results:
    told = json.loads(Path(path).read_text())
    rows = [benchmark["extra_info"] for benchmark in told["benchmarks"]]
    return Results(told["machine_info"], told["datetime"][:10], [row for row in rows if "question" in row])


def describe_machine(machine: dict[str, Any]) -> str:
    """One sentence."""
    cpu = machine.get("cpu", {}).get("brand_raw") or machine.get("processor") or "unknown processor"
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items() if number)
    python = f"{machine.get('python_implementation')} {machine.get('python_version')}"
    system = f"{machine.get('system')} {machine.get('release')}"
    return f"{cpu}, {machine.get('cores')} cores, {system}, {python}, {versions}; SHA-256: {machine.get('sha256_backend')}"

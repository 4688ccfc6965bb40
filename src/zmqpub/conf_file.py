"""bitcoin.conf, read as Bitcoin Core reads it (ArgsManager::ReadConfigFiles and GetSettingsList). Knows no topics.

The grammar: ``#`` begins a comment anywhere, ``[section]`` heads a section, ``name=value`` with blanks around either
trimmed. ``section.name=value`` belongs to that section, ``noname=1`` takes back what stood before it. Sections are
chains: what stands in the chosen chain's section comes before what stands outside all sections, and both apply.

Two differences: a byte order mark is skipped (Bitcoin Core takes it for a part of the first name and ignores that
option), and everything that is wrong is reported at once, with file and line. No value of an option that is not asked
for is ever shown: it may be a password.
"""

from __future__ import annotations

import codecs
import difflib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["CHAINS", "ConfFile", "Entry", "interpret_bool", "live_entries", "load_conf"]

CHAINS: Final = ("main", "test", "testnet4", "signet", "regtest")
"""The names of the chains, which are the names of the sections too."""

_FLAGS: Final = {"regtest": "regtest", "signet": "signet", "testnet": "test", "testnet4": "testnet4"}
_BLANKS: Final = " \t\r\n"
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_.]{1,64}\Z")
_NUMBER: Final = re.compile(r"(?:-|\+(?!-))?[0-9]+")
_NOT_ZERO: Final = re.compile(r"(?:-|\+(?!-))?0*[1-9]")
_SURROGATE: Final = re.compile("[\udc80-\udcff]")

_log = logging.getLogger("zmqpub")


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting at one place."""

    name: str
    """Without section and without ``no``."""
    written: str
    """As it was written, without leading dashes."""
    value: str | None
    """None where the setting is negated."""
    where: str | None = None
    """``file:line``, None where it did not come from a file."""
    section: str = ""
    doubly_negated: bool = False
    """``noname=0``, which Bitcoin Core takes for ``name=1``."""

    def __str__(self) -> str:
        setting = self.written if self.value is None else f"{self.written}={self.value}"
        return f"{setting} ({self.where})" if self.where else setting


@dataclass(slots=True)
class ConfFile:
    """The settings of a bitcoin.conf and of what it includes."""

    path: str
    chain: str = "main"
    """The chain whose section applies."""
    _entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, of all sections."""
        for entries in self._entries.values():
            yield from entries

    def all(self, name: str) -> list[Entry]:
        """What applies of an option that may be given several times, in order.

        First the chain's section, then what stands outside sections. A negation takes back what stands before it in its
        own section; one that ends the chain's section takes back what stands outside sections, too.
        """
        section, outside = self._parts(name)
        applied = live_entries(section)
        if applied or not section:
            applied = applied + live_entries(outside)
        return applied

    def one(self, name: str) -> Entry | None:
        """What applies of an option that counts once: the first, in the chain's section before outside sections."""
        for entries in self._parts(name):
            live = live_entries(entries)
            if live:
                return live[0]
            if entries:
                return entries[-1]
        return None

    def _parts(self, name: str) -> tuple[list[Entry], list[Entry]]:
        return self._entries.get((self.chain, name), []), self.outside(name)

    def outside(self, name: str) -> list[Entry]:
        """The entries outside all sections, negations included."""
        return self._entries.get(("", name), [])

    def section(self, section: str, name: str) -> list[Entry]:
        """The entries of one section, negations included."""
        return self._entries.get((section, name), [])

    def add(self, entry: Entry) -> None:
        """Append an entry to those of its section."""
        self._entries.setdefault((entry.section, entry.name), []).append(entry)


def live_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Those after the last negation."""
    for index in range(len(entries), 0, -1):
        if entries[index - 1].value is None:
            return list(entries[index:])
    return list(entries)


def interpret_bool(value: str) -> bool:
    """A flag's value as Bitcoin Core reads it: nothing is true, else the number it begins with; words are false."""
    if not value:
        return True
    return _NOT_ZERO.match(value.strip(" \f\n\r\t\v")) is not None


def load_conf(
    path: str | os.PathLike[str], chain: str | None = None, datadir: str | os.PathLike[str] | None = None
) -> tuple[ConfFile, list[ConfigProblem]]:
    """The file at ``path`` and what it includes, and everything that is wrong with them.

    ``chain`` (one of `CHAINS`) chooses the section, whatever the file says; None leaves the choice to ``chain=``,
    ``regtest=1``, ``testnet=1``, ``testnet4=1`` and ``signet=1`` in the file. ``includeconf=`` is relative to
    ``datadir``, by default the folder of the file. Raises ConfigError where there is nothing to go on with: an unknown
    chain, a file that cannot be read.
    """
    if chain is not None and chain not in CHAINS:
        raise ConfigError(ConfigProblem("chain", str(chain), _unknown_chain(str(chain))))
    file = os.fspath(path)
    conf = ConfFile(file)
    problems: list[ConfigProblem] = []
    try:
        data = _read(file)
    except (OSError, ValueError) as error:
        message = f"cannot read the configuration file: {_reason(error)}"
        raise ConfigError(ConfigProblem("conf", file, message)) from error
    _parse(conf, file, data, problems)
    conf.chain = chain or _choose_chain(conf, problems)
    _include(conf, os.fspath(datadir) if datadir is not None else os.path.dirname(file), problems)
    # What was included may choose the chain too, though only after its own section's includes were settled.
    chosen = _choose_chain(conf, problems)
    conf.chain = chain or chosen
    _warn_of_misplaced_choices(conf)
    return conf, list(dict.fromkeys(problems))


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _reason(error: OSError | ValueError) -> str:
    """ValueError is what open raises for a name with a NUL or a lone surrogate in it."""
    return error.strerror or str(error) if isinstance(error, OSError) else "this is no name of a file"


def _parse(conf: ConfFile, file: str, data: bytes, problems: list[ConfigProblem]) -> None:
    """Add the entries of one file to ``conf``."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problems.append(ConfigProblem("conf", None, "the file is UTF-16; save it as UTF-8", f"{file}:1"))
        return
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
        _log.warning("%s:1: skipping a byte order mark; Bitcoin Core would take it for part of the first name", file)
    prefix = ""
    for number, raw in enumerate(data.split(b"\n"), 1):
        content, hash_sign, _ = raw.partition(b"#")
        line = content.decode("utf-8", "surrogateescape").strip(_BLANKS)
        where = f"{file}:{number}"
        if not line:
            continue
        if line[0] == "[" and line[-1] == "]":
            prefix = f"{line[1:-1]}."
            if _SURROGATE.search(prefix):
                problems.append(_not_utf8("conf", content, where))
            continue
        name, equals, value = line.partition("=")
        name, value = name.rstrip(_BLANKS), value.lstrip(_BLANKS)
        if line[0] == "-":
            bare = name.lstrip("-")
            shown = bare if equals and _SAFE_NAME.match(bare) else "conf"
            problems.append(ConfigProblem(shown, None, "options in a file are written without a leading -", where))
        elif not equals:
            problems.append(ConfigProblem(*_no_setting(line), where))
        elif hash_sign and "rpcpassword" in name:
            message = "a # begins a comment, so that one in a password cuts it short; use rpcauth or another password"
            problems.append(ConfigProblem("rpcpassword", None, message, where))
        elif _SURROGATE.search(name):
            problems.append(_not_utf8("conf", content, where))
        else:
            entry = _entry(prefix, name, value, where)
            if entry.name == "conf":
                message = "a configuration file cannot name another; use includeconf"
                problems.append(ConfigProblem("conf", None, message, where))
            elif _is_ours(entry.name) and _SURROGATE.search(value):
                problems.append(_not_utf8(entry.written, content, where))
            else:
                conf.add(entry)


def _entry(prefix: str, name: str, value: str, where: str) -> Entry:
    """The setting as ArgsManager understands it: the first dot ends the section, then ``no`` negates."""
    section, dot, bare = (prefix + name).partition(".")
    if not dot:
        section, bare = "", section
    negated = bare.startswith("no")
    bare = bare[2:] if negated else bare
    doubly = negated and not interpret_bool(value)
    return Entry(bare, name, None if negated and not doubly else value, where, section, doubly)


def _is_ours(name: str) -> bool:
    """Whether the value will be looked at, here or by config.py; only then is its encoding anybody's business."""
    return name.lower().startswith("zmqpub") or name in _FLAGS or name in ("chain", "includeconf")


def _not_utf8(option: str, content: bytes, where: str) -> ConfigProblem:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{content[error.start]:02x} in column {error.start + 1} is not UTF-8; save the file as UTF-8"
        return ConfigProblem(option, None, detail, where)
    raise AssertionError("only called for what does not decode")


def _no_setting(line: str) -> tuple[str, None, str]:
    """Option, value and message for a line without ``=``; the line may be a secret and is shown only if it is ours."""
    message = "neither name=value nor a [section]"
    if _SAFE_NAME.match(line) and re.match(r"(no)?(zmqpub|regtest|testnet|signet|chain|includeconf)", line):
        return line, None, f"{message}: did you mean {line}={'1' if line.startswith('no') else '…'}?"
    return "conf", None, message


def _choose_chain(conf: ConfFile, problems: list[ConfigProblem]) -> str:
    """The chain that the file chooses; outside sections only, as Bitcoin Core does."""
    choices: list[tuple[Entry, str]] = []
    chains = conf.outside("chain")
    if chains:
        entry = (live_entries(chains) or chains[-1:])[0]
        if entry.value not in CHAINS or entry.doubly_negated:
            problems.append(ConfigProblem(entry.written, entry.value, _unknown_chain(entry.value), entry.where))
        choices.append((entry, entry.value or "main"))
    for flag, chain in _FLAGS.items():
        # Bitcoin Core lets the last of these count, unlike for all other options.
        for entry in conf.outside(flag)[-1:]:
            if entry.doubly_negated or (entry.value is not None and interpret_bool(entry.value)):
                choices.append((entry, chain))
            elif entry.value is not None and not _NUMBER.match(entry.value):
                _log.warning("%s: only a number turns this on, as in %s=1; it stays off", entry, entry.written)
    for entry, _ in choices[1:]:
        message = f"conflicts with {choices[0][0]}: the chain can be chosen once only"
        problems.append(ConfigProblem(entry.written, entry.value, message, entry.where))
    known = [chain for _, chain in choices if chain in CHAINS]
    return known[0] if known else "main"


def _unknown_chain(chain: str | None) -> str:
    aliases = {"mainnet": "main", "testnet": "test", "testnet3": "test"}
    text = chain or ""
    near = [aliases[text]] if text in aliases else difflib.get_close_matches(text, CHAINS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no known chain, these are {', '.join(CHAINS)}{hint}"


def _warn_of_misplaced_choices(conf: ConfFile) -> None:
    for entry in conf:
        if entry.section and (entry.name == "chain" or entry.name in _FLAGS):
            _log.warning("%s: has no effect in section [%s]; it chooses the chain outside only", entry, entry.section)


def _include(conf: ConfFile, folder: str, problems: list[ConfigProblem]) -> None:
    """Read what the file includes: the chain's section first, then outside; what is included includes nothing."""
    parts = (conf.section(conf.chain, "includeconf"), conf.outside("includeconf"))
    own = {id(entry) for part in parts for entry in part}
    for entry in [*live_entries(parts[0]), *live_entries(parts[1])]:
        value = entry.value or ""
        if entry.doubly_negated or not value:
            problems.append(ConfigProblem(entry.written, value, "names no file to include", entry.where))
            continue
        file = os.path.join(folder, value)
        try:
            data = _read(file)
        except (OSError, ValueError) as error:
            message = f"cannot read {file}: {_reason(error)}"
            problems.append(ConfigProblem(entry.written, value, message, entry.where))
            continue
        _parse(conf, file, data, problems)
    for entry in [*conf.section(conf.chain, "includeconf"), *conf.outside("includeconf")]:
        if id(entry) not in own and entry.value is not None:
            _log.warning("%s: ignored, because an included file cannot include another", entry)

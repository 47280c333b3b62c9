"""`shell.environment_file`: the service's variables, which count for commands by hand too."""

from pathlib import Path

import pytest

from shell.environment_file import Told, parse
from tests.shell.command_line import agent


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("A=1\n# B=2\n; C=3\n\nD = 4\n", {"A": "1", "D": "4"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ('A="two words"\nB=\'x"y\'\nC="a\\"b\\\\c"\n', {"A": "two words", "B": 'x"y', "C": 'a"b\\c'}),
        ("A=\nnothing\n", {"A": ""}),
    ],
)
def test_it_is_read_as_systemd_reads_it(text: str, found: dict[str, str]) -> None:
    """Comments, quotes, and the last of two."""
    assert parse(text) == Told(found, {})


@pytest.mark.parametrize("wrong", ["x" * 100_000, "'open", "nul\0"])
def test_a_line_that_makes_no_sense_is_left_out_and_said(tmp_path: Path, wrong: str) -> None:
    """By its name, since a value may be a secret; the others count, and what is not for us is not spoken of."""
    file = tmp_path / "agent.env"
    file.write_text(f"TECHULUS_TOKEN={wrong}\nFOREIGN={wrong}\n# it's {wrong}\nTECHULUS_DATA_DIR={tmp_path / 'told'}\n")
    done = agent("status", env={"TECHULUS_ENV_FILE": str(file)})
    assert "told" in done.out + done.err
    said = [line for line in done.err.splitlines() if "passed over" in line]
    assert len(said) == 1 and said[0].startswith(f"agent: {file}: TECHULUS_TOKEN is passed over: ")
    assert wrong not in said[0]
    given = agent("status", env={"TECHULUS_ENV_FILE": str(file), "TECHULUS_TOKEN": "t"})
    assert "passed over" not in given.err


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    """Never silently as if it were not there."""
    file = tmp_path / "agent.env"
    file.write_bytes(b"TECHULUS_DATA_DIR=/told\n# caf\xe9\n")
    assert f"agent: {file} is passed over: it is not UTF-8" in agent("status", env={"TECHULUS_ENV_FILE": str(file)}).err


def test_commands_by_hand_see_what_the_service_sees(tmp_path: Path) -> None:
    """Where neither the environment nor an option says otherwise; a line that makes no sense is as if it were not there."""
    file = tmp_path / "agent.env"
    file.write_text(f"TECHULUS_DATA_DIR={tmp_path / 'told'}\nPATH=/nowhere\n")

    def asked(**more: str) -> str:
        done = agent("status", env={"TECHULUS_ENV_FILE": str(file), **more})
        assert done.status == 3
        return done.out + done.err

    assert "told" in asked()
    assert "other" in asked(TECHULUS_DATA_DIR=str(tmp_path / "other"))
    file.write_text("TECHULUS_DATA_DIR='")
    assert "/var/lib/techulus-agent" in asked()


def test_the_manual_and_the_version() -> None:
    """What an installer and a person ask."""
    manual = agent("man").out
    assert manual.startswith(".TH AGENT 1") and "TECHULUS_LOGS_ENDPOINT" in manual
    assert agent("--version").out.startswith("agent 0.")

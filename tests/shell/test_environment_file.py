"""`shell.environment_file`: the service's variables, which count for commands by hand too."""

from pathlib import Path

import pytest

from shell.environment_file import parse
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
    assert parse(text) == found


def test_commands_by_hand_see_what_the_service_sees(tmp_path: Path) -> None:
    """Where neither the environment nor an option says otherwise; a file that makes no sense is as if it were not there."""
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

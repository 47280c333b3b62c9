"""What each command does, one module each. `shell.cli` declares the options and imports a command only when it runs."""

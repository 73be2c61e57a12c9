"""The commands; `nansparse.cli.main` is the entry point."""

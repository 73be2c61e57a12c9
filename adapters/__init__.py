"""One file per engine, installed as `nansparse.adapters`; README.md says how to add one."""

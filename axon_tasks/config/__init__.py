"""hosts.yml -> typed settings."""

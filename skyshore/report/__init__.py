"""Statistics, tables and plots over outcomes; replay and compare share it."""

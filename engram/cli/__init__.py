"""The command line: serve, check, log, reembed, rebuild."""

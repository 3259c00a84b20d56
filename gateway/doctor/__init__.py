"""What is missing or wrong on this host, said before it costs anything: each check is one small function."""

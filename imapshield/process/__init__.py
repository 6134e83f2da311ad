"""The process of a server: signals, reloads, its log file, its user, and systemd."""

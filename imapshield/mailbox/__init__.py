"""What a session needs of storage: interfaces, one client's view, search; no disk and no Twisted."""

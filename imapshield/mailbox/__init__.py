"""What a session needs of storage: interfaces, values, one client's view, search and sorting. No disk and no
Twisted."""

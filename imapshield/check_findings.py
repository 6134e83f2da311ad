"""What a check of the configuration finds: how serious it is, and a line."""

OK, WARNING, ERROR = range(3)
"""How serious a finding is. The highest one is the exit status."""

Finding = tuple[int, str]

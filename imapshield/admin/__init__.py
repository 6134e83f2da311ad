"""The status page for a web browser, and the figures for Prometheus (``--admin``, ``--metrics``)."""

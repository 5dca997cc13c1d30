"""What the suites share: installed peers, processes, plain HTTP, load, and the report."""

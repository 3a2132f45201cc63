"""report.html and the tables that compare runs."""

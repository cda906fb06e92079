"""Reports: pages, tables and plots from the records of finished stages; no model is loaded."""

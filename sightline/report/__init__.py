"""Reports: pages, tables and plots made from records alone. No model is opened and nothing is trained here."""

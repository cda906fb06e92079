"""User-facing services and web pages: chat, label, serve, monitor, export."""

"""The outer edge: services and pages over the other rooms. No logic lives here that no command offers."""

"""`sightline chat`: ask one model, or two side by side, about a picture, and save preferences with one click."""
